// The Python face of the transform and of packed integers.
#include "bindings.h"

namespace tc::bindings {
namespace {

using Size = Py_ssize_t;

// Below 2^50 for the doubles, above 2^49 for the estimates.
bool modulus_fits(unsigned long long modulus) { return modulus > (1ull << 49) && modulus < (1ull << 50); }

bool size_fits(Size size) { return size >= 8 && size <= 65536 && (size & (size - 1)) == 0; }

PyObject* ntt(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer rows, roots;
    Size size;
    unsigned long long modulus, scale;
    if (!PyArg_ParseTuple(args, "Iw*nKy*K", &use, &rows.view, &size, &modulus, &roots.view, &scale)) return nullptr;
    if (!size_fits(size) || !modulus_fits(modulus) || scale >= modulus) return wrong_length("size and modulus");
    const std::size_t width = 8 * static_cast<std::size_t>(size), count = rows.size() / width;
    if (!rows.holds(count, width) || !roots.holds(1, width)) return wrong_length("rows and roots");
    return run([&] { return tc::ntt(dispatch(use), rows.out(), count, width / 8, modulus, roots.data(), scale); });
}

PyObject* ntt_mul(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer a, b, out;
    unsigned long long modulus;
    if (!PyArg_ParseTuple(args, "Iy*y*Kw*", &use, &a.view, &b.view, &modulus, &out.view)) return nullptr;
    if (!modulus_fits(modulus) || a.size() != out.size() || a.size() % 32 != 0 || b.size() % 32 != 0) {
        return wrong_length("factors and results");
    }
    if (a.size() != 0 && (b.size() == 0 || a.size() % b.size() != 0)) return wrong_length("factors");
    return run([&] {
        return tc::ntt_mul(dispatch(use), a.data(), b.data(), b.size() / 8, a.size() / 8, modulus, out.out());
    });
}

bool packed_fits(std::size_t count, Size width, std::size_t packed) {
    return width >= 1 && width <= 63 && count < (std::size_t{1} << 40) &&
           packed == (count * static_cast<std::size_t>(width) + 7) / 8;
}

PyObject* bits_pack(PyObject*, PyObject* args) {
    Buffer values, out;
    Size width;
    if (!PyArg_ParseTuple(args, "y*nw*", &values.view, &width, &out.view)) return nullptr;
    const std::size_t count = values.size() / 8;
    if (!values.holds(count, 8) || !packed_fits(count, width, out.size())) return wrong_length("values and bits");
    return run([&] { return tc::bits_pack(values.data(), count, static_cast<unsigned>(width), out.out()); });
}

PyObject* bits_unpack(PyObject*, PyObject* args) {
    Buffer packed, out;
    Size width;
    if (!PyArg_ParseTuple(args, "y*nw*", &packed.view, &width, &out.view)) return nullptr;
    const std::size_t count = out.size() / 8;
    if (!out.holds(count, 8) || !packed_fits(count, width, packed.size())) return wrong_length("values and bits");
    return run([&] {
        return tc::bits_unpack(packed.data(), packed.size(), count, static_cast<unsigned>(width), out.out());
    });
}

PyObject* ring_ternary(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer words, out;
    unsigned long long modulus;
    if (!PyArg_ParseTuple(args, "Iy*Kw*", &use, &words.view, &modulus, &out.view)) return nullptr;
    const std::size_t count = words.size() / 8;
    if (!modulus_fits(modulus) || !words.holds(count, 8) || !out.holds(count, 8)) return wrong_length("words");
    return run([&] { return dispatch(use).ring.ternary(words.data(), count, modulus, out.out()); });
}

PyObject* ring_blend(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer rows, words, values, out;
    Size shift;
    unsigned long long modulus;
    if (!PyArg_ParseTuple(args, "Iy*y*y*nKw*", &use, &rows.view, &words.view, &values.view, &shift, &modulus,
                          &out.view)) {
        return nullptr;
    }
    const std::size_t count = rows.size() / 8;
    const bool fits = rows.holds(count, 8) && words.holds(count, 8) && out.holds(count, 8);
    if (!fits || (values.size() != 0 && !values.holds(count, 8))) return wrong_length("rows, words and values");
    if (!modulus_fits(modulus) || shift < 0 || shift > 49) return wrong_length("modulus and shift");
    return run([&] {
        const u8* given = values.size() == 0 ? nullptr : values.data();
        dispatch(use).ring.blend(rows.data(), words.data(), given, count, static_cast<unsigned>(shift), modulus, out.out());
    });
}

PyObject* ring_add(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer a, b, out;
    unsigned long long modulus;
    if (!PyArg_ParseTuple(args, "Iy*y*Kw*", &use, &a.view, &b.view, &modulus, &out.view)) return nullptr;
    const std::size_t count = a.size() / 8;
    if (!modulus_fits(modulus) || !a.holds(count, 8) || !b.holds(count, 8) || !out.holds(count, 8)) {
        return wrong_length("summands");
    }
    return run([&] { return dispatch(use).ring.add(a.data(), b.data(), count, modulus, out.out()); });
}

}  // namespace

PyMethodDef kNttMethods[] = {
    TC_METHOD(ring_ternary),
    TC_METHOD(ring_blend),
    TC_METHOD(ring_add),
    TC_METHOD(ntt),
    TC_METHOD(ntt_mul),
    TC_METHOD(bits_pack),
    TC_METHOD(bits_unpack),
    kNoMoreMethods,
};

}  // namespace tc::bindings
