"""The kernels in readable Python and gmpy2: the specification of the extension and its oracle in the tests.

Same functions, same results, same errors as ``src/native``. Used where no extension could be built: about
1 ms a scalar multiplication. *Not constant time*: gmpy2's integers take time that depends on their values.
Big integers hold the GIL, so threads do not help; a process pool does (``primitives.parallel`` takes
either).
"""

from trustcompute.kernels.reference.aes import aes128_ctr, aes128_davies_meyer, aes128_hash
from trustcompute.kernels.reference.code import code_compress, code_convolve, code_expand
from trustcompute.kernels.reference.curve import (
    ristretto255_check,
    ristretto255_from_uniform,
    ristretto255_hash,
    ristretto255_hash_blind,
    ristretto255_hash_mul,
    ristretto255_mul,
    ristretto255_mul_base,
    ristretto255_multiscalar_vartime,
    ristretto255_sub,
    ristretto255_unblind,
)
from trustcompute.kernels.reference.digest import digest_columns, expand_message_xmd, oprf_finalize
from trustcompute.kernels.reference.gf128 import gf128_dot, gf128_mul
from trustcompute.kernels.reference.match import match_rows, match_sorted, sort_rows
from trustcompute.kernels.reference.ntt import bits_pack, bits_unpack, ntt, ntt_mul
from trustcompute.kernels.reference.okvs import okvs_decode, okvs_encode
from trustcompute.kernels.reference.pir import lwe_product, pir_answer, pir_multiply, word_product
from trustcompute.kernels.reference.pprf import pprf_expand, pprf_puncture
from trustcompute.kernels.reference.ring import ring_add, ring_blend, ring_ternary
from trustcompute.kernels.reference.scalar import (
    scalar255_invert,
    scalar255_mul,
    scalar255_reduce,
    scalar255_sub,
)

__all__ = [
    "aes128_ctr",
    "aes128_davies_meyer",
    "aes128_hash",
    "bits_pack",
    "bits_unpack",
    "code_compress",
    "code_convolve",
    "code_expand",
    "digest_columns",
    "expand_message_xmd",
    "gf128_dot",
    "gf128_mul",
    "lwe_product",
    "match_rows",
    "match_sorted",
    "ntt",
    "ntt_mul",
    "okvs_decode",
    "okvs_encode",
    "oprf_finalize",
    "pir_answer",
    "pir_multiply",
    "pprf_expand",
    "pprf_puncture",
    "ring_add",
    "ring_blend",
    "ring_ternary",
    "ristretto255_check",
    "ristretto255_from_uniform",
    "ristretto255_hash",
    "ristretto255_hash_blind",
    "ristretto255_hash_mul",
    "ristretto255_mul",
    "ristretto255_mul_base",
    "ristretto255_multiscalar_vartime",
    "ristretto255_sub",
    "ristretto255_unblind",
    "scalar255_invert",
    "scalar255_mul",
    "scalar255_reduce",
    "scalar255_sub",
    "sort_rows",
    "word_product",
]
