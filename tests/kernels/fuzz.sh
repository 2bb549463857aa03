#!/bin/sh
# Fuzz every function of the extension, built with AddressSanitizer and UndefinedBehaviorSanitizer. From anywhere:
#   PYTHON=.venv/bin/python CXX=g++ tests/kernels/fuzz.sh --seconds 600
exec "$(dirname "$0")/sanitize.sh" fuzz "$@"
