// The Python face of the kernels: trustcompute.kernels._native.
//
// Called by kernels/native.py only, which makes the output arrays. Every function takes flat buffers, checks every
// length against the others before a byte is written, and releases the GIL while it computes. Nothing here is kept
// between calls. Limited API of CPython 3.11.
#include <vector>

#include "bindings.h"

namespace {

using tc::i64;
using tc::u8;
using namespace tc::bindings;

// One scalar a row, or one for all of them.
bool scalars_fit(const Buffer& scalars, std::size_t count, std::size_t& step) {
    step = scalars.size() == 32 && count != 1 ? 0 : 32;
    return step == 0 || scalars.holds(count, 32);
}

bool tag_fits(const Buffer& dst) { return dst.size() >= 1 && dst.size() <= 255; }

PyObject* detect(PyObject*, PyObject*) { return PyLong_FromUnsignedLong(tc::detect()); }

PyObject* ristretto255_mul(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer points, scalars, out;
    if (!PyArg_ParseTuple(args, "Iy*y*w*", &use, &points.view, &scalars.view, &out.view)) return nullptr;
    const std::size_t count = out.size() / 32;
    std::size_t step;
    if (!out.holds(count, 32) || !points.holds(count, 32)) return wrong_length("points and results");
    if (!scalars_fit(scalars, count, step)) return wrong_length("scalars");
    return run([&] { return tc::dispatch(use).curve.mul(points.data(), scalars.data(), step, count, out.out()); });
}

PyObject* ristretto255_mul_base(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer scalars, out;
    if (!PyArg_ParseTuple(args, "Iy*w*", &use, &scalars.view, &out.view)) return nullptr;
    const std::size_t count = out.size() / 32;
    if (!out.holds(count, 32) || !scalars.holds(count, 32)) return wrong_length("scalars and results");
    return run([&] { return tc::dispatch(use).curve.mul_base(scalars.data(), count, out.out()); });
}

PyObject* ristretto255_check(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer points;
    if (!PyArg_ParseTuple(args, "Iy*", &use, &points.view)) return nullptr;
    const std::size_t count = points.size() / 32;
    if (!points.holds(count, 32)) return wrong_length("points");
    return run([&] { return tc::dispatch(use).curve.check(points.data(), count); });
}

// Of two rows of 32 bytes a third one.
template <auto kKernel>
PyObject* binary(PyObject*, PyObject* args) {
    Buffer a, b, out;
    if (!PyArg_ParseTuple(args, "y*y*w*", &a.view, &b.view, &out.view)) return nullptr;
    const std::size_t count = out.size() / 32;
    if (!out.holds(count, 32) || !a.holds(count, 32) || !b.holds(count, 32)) {
        return wrong_length("operands and results");
    }
    return run([&] { return kKernel(a.data(), b.data(), count, out.out()); });
}

PyObject* ristretto255_multiscalar_vartime(PyObject*, PyObject* args) {
    Buffer points, scalars, out;
    if (!PyArg_ParseTuple(args, "y*y*w*", &points.view, &scalars.view, &out.view)) return nullptr;
    const std::size_t count = points.size() / 32;
    if (!points.holds(count, 32) || !scalars.holds(count, 32)) return wrong_length("points and scalars");
    if (!out.holds(1, 32)) return wrong_length("the result");
    return run([&] { return tc::ristretto255_multiscalar_vartime(points.data(), scalars.data(), count, out.out()); });
}

PyObject* ristretto255_from_uniform(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer uniform, out;
    if (!PyArg_ParseTuple(args, "Iy*w*", &use, &uniform.view, &out.view)) return nullptr;
    const std::size_t count = out.size() / 32;
    if (!out.holds(count, 32) || !uniform.holds(count, 64)) return wrong_length("uniform bytes and results");
    return run([&] { return tc::dispatch(use).curve.from_uniform(uniform.data(), count, out.out()); });
}

PyObject* ristretto255_hash(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer messages, dst, out;
    Py_ssize_t width;
    if (!PyArg_ParseTuple(args, "Iy*ny*w*", &use, &messages.view, &width, &dst.view, &out.view)) return nullptr;
    const std::size_t count = out.size() / 32, bytes = static_cast<std::size_t>(width);
    if (width < 0 || !out.holds(count, 32) || !messages.holds(count, bytes)) {
        return wrong_length("messages and results");
    }
    if (!tag_fits(dst)) return wrong_length("the domain separation tag");
    return run([&] {
        return tc::dispatch(use).curve.hash(messages.data(), bytes, dst.data(), dst.size(), count, out.out());
    });
}

// Messages, each with its scalar.
struct Hashing {
    unsigned int use = 0;
    Buffer messages, dst, scalars, out;
    Py_ssize_t width = 0;
    std::size_t count = 0, bytes = 0, step = 0;

    // Sets an exception where what was passed does not fit together.
    bool parse(PyObject* args) {
        if (!PyArg_ParseTuple(args, "Iy*ny*y*w*", &use, &messages.view, &width, &dst.view, &scalars.view, &out.view)) {
            return false;
        }
        count = out.size() / 32;
        bytes = static_cast<std::size_t>(width);
        if (width < 0 || !out.holds(count, 32) || !messages.holds(count, bytes)) {
            wrong_length("messages and results");
        } else if (!tag_fits(dst)) {
            wrong_length("the domain separation tag");
        } else if (!scalars_fit(scalars, count, step)) {
            wrong_length("scalars");
        } else {
            return true;
        }
        return false;
    }
};

PyObject* ristretto255_hash_mul(PyObject*, PyObject* args) {
    Hashing given;
    if (!given.parse(args)) return nullptr;
    return run([&] {
        tc::dispatch(given.use).curve.hash_mul(given.messages.data(), given.bytes, given.dst.data(), given.dst.size(),
                                               given.scalars.data(), given.step, given.count, given.out.out());
    });
}

PyObject* ristretto255_hash_blind(PyObject*, PyObject* args) {
    Hashing given;
    if (!given.parse(args)) return nullptr;
    if (given.step == 0) return wrong_length("scalars");
    return run([&] {
        tc::dispatch(given.use).curve.hash_blind(given.messages.data(), given.bytes, given.dst.data(),
                                                 given.dst.size(), given.scalars.data(), given.count,
                                                 given.out.out());
    });
}

PyObject* ristretto255_unblind(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer points, base, scalars, out;
    if (!PyArg_ParseTuple(args, "Iy*y*y*w*", &use, &points.view, &base.view, &scalars.view, &out.view)) return nullptr;
    const std::size_t count = out.size() / 32;
    if (!out.holds(count, 32) || !points.holds(count, 32)) return wrong_length("points and results");
    if (!base.holds(1, 32)) return wrong_length("the base");
    if (!scalars.holds(count, 32)) return wrong_length("scalars");
    return run([&] {
        return tc::dispatch(use).curve.unblind(points.data(), base.data(), scalars.data(), count, out.out());
    });
}

PyObject* scalar255_reduce(PyObject*, PyObject* args) {
    Buffer wide, out;
    if (!PyArg_ParseTuple(args, "y*w*", &wide.view, &out.view)) return nullptr;
    const std::size_t count = out.size() / 32;
    if (!out.holds(count, 32) || !wide.holds(count, 64)) return wrong_length("integers and results");
    return run([&] { return tc::scalar255_reduce(wide.data(), count, out.out()); });
}

PyObject* scalar255_invert(PyObject*, PyObject* args) {
    Buffer scalars, out;
    if (!PyArg_ParseTuple(args, "y*w*", &scalars.view, &out.view)) return nullptr;
    const std::size_t count = out.size() / 32;
    if (!out.holds(count, 32) || !scalars.holds(count, 32)) return wrong_length("scalars and results");
    return run([&] { return tc::scalar255_invert(scalars.data(), count, out.out()); });
}

PyObject* expand_message_xmd(PyObject*, PyObject* args) {
    Buffer messages, dst, out;
    Py_ssize_t width, length;
    if (!PyArg_ParseTuple(args, "y*ny*nw*", &messages.view, &width, &dst.view, &length, &out.view)) return nullptr;
    if (length < 1 || length > 255 * 64) return wrong_length("the length to expand to");
    const std::size_t wanted = static_cast<std::size_t>(length), bytes = static_cast<std::size_t>(width);
    const std::size_t count = out.size() / wanted;
    if (width < 0 || !out.holds(count, wanted) || !messages.holds(count, bytes)) {
        return wrong_length("messages and results");
    }
    if (!tag_fits(dst)) return wrong_length("the domain separation tag");
    return run([&] {
        tc::expand_message_xmd(messages.data(), bytes, dst.data(), dst.size(), wanted, count, out.out());
    });
}

PyObject* oprf_finalize(PyObject*, PyObject* args) {
    Buffer inputs, elements, out;
    Py_ssize_t width;
    if (!PyArg_ParseTuple(args, "y*ny*w*", &inputs.view, &width, &elements.view, &out.view)) return nullptr;
    const std::size_t count = out.size() / 64, bytes = static_cast<std::size_t>(width);
    if (width < 0 || width > 0xffff || !out.holds(count, 64) || !inputs.holds(count, bytes)) {
        return wrong_length("inputs and results");
    }
    if (!elements.holds(count, 32)) return wrong_length("elements");
    return run([&] { return tc::oprf_finalize(inputs.data(), bytes, elements.data(), count, out.out()); });
}

// One column: (tag, width or -1, offsets or b"", data).
bool parse_column(PyObject* item, std::size_t count, Buffer& offsets, Buffer& data, tc::Column& column) {
    unsigned char tag;
    Py_ssize_t width;
    if (!PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError, "a column is a tuple (tag, width, offsets, data)");
        return false;
    }
    if (!PyArg_ParseTuple(item, "bny*y*", &tag, &width, &offsets.view, &data.view)) return false;
    const bool fixed = width >= 0;
    const std::size_t bytes = fixed ? static_cast<std::size_t>(width) : 0;
    if (fixed ? bytes > 0xffffffff || !data.holds(count, bytes) : !offsets.holds(count + 1, 8)) {
        wrong_length("a column and the results");
        return false;
    }
    column = {tag, fixed, bytes, offsets.data(), data.data(), data.size()};
    return true;
}

PyObject* digest_columns(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer prefix, out;
    PyObject* items;
    if (!PyArg_ParseTuple(args, "Iy*O!w*", &use, &prefix.view, &PyTuple_Type, &items, &out.view)) return nullptr;
    const std::size_t count = out.size() / 32;
    if (!out.holds(count, 32)) return wrong_length("the results");
    const Py_ssize_t width = PyTuple_Size(items);
    try {
        const std::size_t number = static_cast<std::size_t>(width);
        std::vector<Buffer> buffers(2 * number);
        std::vector<tc::Column> columns(number);
        for (std::size_t i = 0; i < number; ++i) {
            PyObject* item = PyTuple_GetItem(items, static_cast<Py_ssize_t>(i));
            if (!parse_column(item, count, buffers[2 * i], buffers[2 * i + 1], columns[i])) return nullptr;
        }
        return run([&] {
            return tc::digest_columns(tc::dispatch(use), prefix.data(), prefix.size(), columns, count, out.out());
        });
    } catch (const std::bad_alloc&) {
        return PyErr_NoMemory();
    }
}

PyMethodDef kMethods[] = {
    {"detect", detect, METH_NOARGS, nullptr},
    TC_METHOD(ristretto255_mul),
    TC_METHOD(ristretto255_mul_base),
    TC_METHOD(ristretto255_check),
    {"ristretto255_sub", binary<tc::ristretto255_sub>, METH_VARARGS, nullptr},
    TC_METHOD(ristretto255_multiscalar_vartime),
    TC_METHOD(ristretto255_from_uniform),
    TC_METHOD(ristretto255_hash),
    TC_METHOD(ristretto255_hash_mul),
    TC_METHOD(ristretto255_hash_blind),
    TC_METHOD(ristretto255_unblind),
    TC_METHOD(scalar255_reduce),
    {"scalar255_mul", binary<tc::scalar255_mul>, METH_VARARGS, nullptr},
    {"scalar255_sub", binary<tc::scalar255_sub>, METH_VARARGS, nullptr},
    TC_METHOD(scalar255_invert),
    TC_METHOD(expand_message_xmd),
    TC_METHOD(oprf_finalize),
    TC_METHOD(digest_columns),
    kNoMoreMethods,
};

// FEATURES: ((name, bit), ...) of the instruction sets this build knows.
int fill(PyObject* module) {
    if (PyModule_AddIntConstant(module, "ABI_VERSION", tc::kAbiVersion) < 0) return -1;
    if (PyModule_AddFunctions(module, kVoleMethods) < 0) return -1;
    if (PyModule_AddFunctions(module, kNttMethods) < 0) return -1;
    if (PyModule_AddFunctions(module, kPirMethods) < 0) return -1;
    constexpr Py_ssize_t number = sizeof tc::kFeatures / sizeof tc::kFeatures[0];
    PyObject* features = PyTuple_New(number);
    if (features == nullptr) return -1;
    for (Py_ssize_t i = 0; i < number; ++i) {
        PyObject* pair = Py_BuildValue("(sI)", tc::kFeatures[i].name, static_cast<unsigned>(tc::kFeatures[i].feature));
        if (pair == nullptr || PyTuple_SetItem(features, i, pair) < 0) {  // takes the reference, even if it fails
            Py_DECREF(features);
            return -1;
        }
    }
    const int result = PyModule_AddObjectRef(module, "FEATURES", features);
    Py_DECREF(features);
    return result;
}

PyModuleDef_Slot kSlots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(fill)},
    {0, nullptr},
};

PyModuleDef kModule = {
    PyModuleDef_HEAD_INIT, "_native", "Compiled kernels; see trustcompute.kernels.", 0, kMethods, kSlots, nullptr,
    nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__native() { return PyModuleDef_Init(&kModule); }
