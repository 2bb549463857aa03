// What every Python face of kernels needs: buffers that are given back, the GIL released, outcomes as objects.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <new>
#include <type_traits>

#include "kernels.h"

namespace tc::bindings {

// A buffer that is given back when it goes out of scope; filled by the formats y* and w*.
struct Buffer {
    Py_buffer view{};
    Buffer() = default;
    ~Buffer() {
        if (view.obj != nullptr) PyBuffer_Release(&view);
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    const u8* data() const { return static_cast<const u8*>(view.buf); }
    u8* out() { return static_cast<u8*>(view.buf); }
    std::size_t size() const { return static_cast<std::size_t>(view.len); }
    // Whether this holds exactly `count` rows of `width` bytes, without overflow.
    bool holds(std::size_t count, std::size_t width) const {
        return width == 0 ? size() == 0 : size() % width == 0 && size() / width == count;
    }
};

class ReleasedGil {
   public:
    ReleasedGil() : state_(PyEval_SaveThread()) {}
    ~ReleasedGil() { PyEval_RestoreThread(state_); }
    ReleasedGil(const ReleasedGil&) = delete;
    ReleasedGil& operator=(const ReleasedGil&) = delete;

   private:
    PyThreadState* state_;
};

inline PyObject* wrong_length(const char* what) {
    PyErr_Format(PyExc_ValueError, "the buffers do not fit together: %s", what);
    return nullptr;
}

// None, or the row a kernel found at fault.
inline PyObject* outcome(i64 row) {
    if (row == kFine) Py_RETURN_NONE;
    if (row == kMalformed) return wrong_length("offsets must not fall and must lie inside their data");
    if (row == kBadBase) {
        PyErr_SetString(PyExc_ValueError, "the base is not the canonical encoding of an element");
        return nullptr;
    }
    return PyLong_FromLongLong(row);
}

// Run a kernel without the GIL. Allocation is all that can fail in one; one that returns nothing finds no row at fault.
template <class Kernel>
PyObject* run(Kernel kernel) {
    i64 row = kFine;
    bool out_of_memory = false;
    {
        const ReleasedGil released;
        try {
            if constexpr (std::is_void_v<decltype(kernel())>) {
                kernel();
            } else {
                row = kernel();
            }
        } catch (const std::bad_alloc&) {
            out_of_memory = true;
        }
    }
    return out_of_memory ? PyErr_NoMemory() : outcome(row);
}

// A row of a module's table: the function is known to Python by its own name. Tables end with an empty row.
#define TC_METHOD(name) {#name, name, METH_VARARGS, nullptr}
constexpr PyMethodDef kNoMoreMethods = {nullptr, nullptr, 0, nullptr};

// Functions of psi.vole's kernels.
extern PyMethodDef kVoleMethods[];
// Functions of ring learning with errors.
extern PyMethodDef kNttMethods[];
// Functions of verification's kernels.
extern PyMethodDef kPirMethods[];

}  // namespace tc::bindings
