// The Python face of the kernels of psi.vole, a part of trustcompute.kernels._native.
#include "bindings.h"

namespace tc::bindings {
namespace {

using Size = Py_ssize_t;

std::size_t whole(Size value) { return static_cast<std::size_t>(value); }

bool shape_fits(Size bins, Size sparse, Size dense, Size capacity) {
    return bins >= 1 && bins < (Size{1} << 31) && sparse >= 3 && dense >= 0 && dense <= 16 &&
           sparse + dense <= 0xffff && capacity >= 0 && capacity <= 0xffff;
}

OkvsShape shape_of(Size bins, Size sparse, Size dense, Size capacity) {
    return {static_cast<u32>(bins), static_cast<u32>(sparse), static_cast<u32>(dense), static_cast<u32>(capacity)};
}

bool leaves_fit(Size leaves) { return leaves >= 1 && leaves <= (Size{1} << 30); }

PyObject* aes128_ctr(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer keys, out;
    Size blocks;
    if (!PyArg_ParseTuple(args, "Iy*nw*", &use, &keys.view, &blocks, &out.view)) return nullptr;
    const std::size_t count = keys.size() / kBlockSize;
    if (blocks < 0 || blocks > (Size{1} << 32) || !keys.holds(count, kBlockSize) ||
        (blocks == 0 ? out.size() != 0 : !out.holds(count, kBlockSize * whole(blocks)))) {
        return wrong_length("keys and results");
    }
    return run([&] { return tc::aes128_ctr(dispatch(use), keys.data(), count, whole(blocks), out.out()); });
}

PyObject* aes128_hash(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer key, rows, out;
    Size width;
    if (!PyArg_ParseTuple(args, "Iy*y*nw*", &use, &key.view, &rows.view, &width, &out.view)) return nullptr;
    const std::size_t count = out.size() / kBlockSize;
    if (width < 16 || width % 16 != 0 || !key.holds(1, 16) || !out.holds(count, 16) ||
        !rows.holds(count, whole(width))) {
        return wrong_length("rows and results");
    }
    return run([&] {
        return tc::aes128_hash(dispatch(use), key.data(), rows.data(), whole(width), count, out.out());
    });
}

PyObject* aes128_davies_meyer(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer keys, rows, out;
    if (!PyArg_ParseTuple(args, "Iy*y*w*", &use, &keys.view, &rows.view, &out.view)) return nullptr;
    const std::size_t count = out.size() / kBlockSize;
    if (!out.holds(count, 16) || !keys.holds(count, 16) || !rows.holds(count, 16)) return wrong_length("keys and rows");
    return run([&] { return tc::aes128_davies_meyer(dispatch(use), keys.data(), rows.data(), count, out.out()); });
}

PyObject* gf128_dot(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer a, b, out;
    if (!PyArg_ParseTuple(args, "Iy*y*w*", &use, &a.view, &b.view, &out.view)) return nullptr;
    const std::size_t count = a.size() / kBlockSize;
    if (!out.holds(1, 16) || !a.holds(count, 16) || !b.holds(count, 16)) return wrong_length("factors and result");
    return run([&] { return tc::gf128_dot(dispatch(use), a.data(), b.data(), count, out.out()); });
}

PyObject* gf128_mul(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer a, b, out;
    if (!PyArg_ParseTuple(args, "Iy*y*w*", &use, &a.view, &b.view, &out.view)) return nullptr;
    const std::size_t count = out.size() / kBlockSize, step = b.size() == 16 && count != 1 ? 0 : 16;
    if (!out.holds(count, 16) || !a.holds(count, 16) || (step != 0 && !b.holds(count, 16))) {
        return wrong_length("factors and results");
    }
    return run([&] { return tc::gf128_mul(dispatch(use), a.data(), b.data(), step, count, out.out()); });
}

PyObject* okvs_encode(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer hashes, values, key, out;
    Size bins, sparse, dense, capacity, first, count;
    if (!PyArg_ParseTuple(args, "Iy*y*y*nnnnnnw*", &use, &hashes.view, &values.view, &key.view, &bins, &sparse,
                          &dense, &capacity, &first, &count, &out.view)) {
        return nullptr;
    }
    const std::size_t keys = hashes.size() / kBlockSize;
    if (!shape_fits(bins, sparse, dense, capacity)) return wrong_length("the store's shape");
    const OkvsShape shape = shape_of(bins, sparse, dense, capacity);
    if (!hashes.holds(keys, 16) || !values.holds(keys, 16) || !key.holds(1, 16) ||
        keys >= (std::size_t{1} << 32)) {
        return wrong_length("keys and values");
    }
    if (first < 0 || count < 0 || first > bins - count || !out.holds(shape.size() * whole(count), 16)) {
        return wrong_length("bins and results");
    }
    return run([&] {
        return tc::okvs_encode(dispatch(use), hashes.data(), values.data(), keys, key.data(), shape, whole(first),
                               whole(count), out.out());
    });
}

PyObject* okvs_decode(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer hashes, table, key, out;
    Size bins, sparse, dense;
    if (!PyArg_ParseTuple(args, "Iy*y*y*nnnw*", &use, &hashes.view, &table.view, &key.view, &bins, &sparse, &dense,
                          &out.view)) {
        return nullptr;
    }
    const std::size_t keys = out.size() / kBlockSize;
    if (!shape_fits(bins, sparse, dense, 0)) return wrong_length("the store's shape");
    const OkvsShape shape = shape_of(bins, sparse, dense, 0);
    if (!out.holds(keys, 16) || !hashes.holds(keys, 16) || !key.holds(1, 16)) return wrong_length("keys and results");
    if (!table.holds(shape.size() * shape.bins, 16)) return wrong_length("the store");
    return run([&] {
        return tc::okvs_decode(dispatch(use), hashes.data(), keys, table.data(), key.data(), shape, out.out());
    });
}

PyObject* pprf_expand(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer roots, keys, out, sums;
    Size leaves;
    if (!PyArg_ParseTuple(args, "Iy*ny*w*w*", &use, &roots.view, &leaves, &keys.view, &out.view, &sums.view)) {
        return nullptr;
    }
    const std::size_t trees = roots.size() / kBlockSize;
    if (!leaves_fit(leaves) || !roots.holds(trees, 16) || !keys.holds(2, 16)) return wrong_length("roots and keys");
    if (!out.holds(trees * whole(leaves), 16) || !sums.holds(2 * trees * tree_depth(whole(leaves)), 16)) {
        return wrong_length("leaves and sums");
    }
    return run([&] {
        tc::pprf_expand(dispatch(use), roots.data(), trees, whole(leaves), keys.data(), out.out(), sums.out());
    });
}

PyObject* pprf_puncture(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer sums, points, keys, out, totals;
    Size leaves;
    if (!PyArg_ParseTuple(args, "Iy*y*ny*w*w*", &use, &sums.view, &points.view, &leaves, &keys.view, &out.view,
                          &totals.view)) {
        return nullptr;
    }
    const std::size_t trees = points.size() / 8;
    if (!leaves_fit(leaves) || !points.holds(trees, 8) || !keys.holds(2, 16)) return wrong_length("points and keys");
    if (!sums.holds(trees * tree_depth(whole(leaves)), 16) || !out.holds(trees * whole(leaves), 16) ||
        !totals.holds(trees, 16)) {
        return wrong_length("sums and leaves");
    }
    return run([&] {
        tc::pprf_puncture(dispatch(use), sums.data(), points.data(), trees, whole(leaves), keys.data(), out.out(),
                          totals.out());
    });
}

PyObject* sort_rows(PyObject*, PyObject* args) {
    Buffer rows, order, sorted;
    Size width;
    if (!PyArg_ParseTuple(args, "y*nw*w*", &rows.view, &width, &order.view, &sorted.view)) return nullptr;
    const std::size_t count = order.size() / 8;
    if (width < 1 || !order.holds(count, 8) || !rows.holds(count, whole(width)) ||
        !sorted.holds(count, whole(width)) || count >= (std::size_t{1} << 31)) {
        return wrong_length("rows and results");
    }
    return run([&] { return tc::sort_rows(rows.data(), count, whole(width), order.out(), sorted.out()); });
}

PyObject* match_sorted(PyObject*, PyObject* args) {
    Buffer values, table, out;
    Size width;
    if (!PyArg_ParseTuple(args, "y*y*nw*", &values.view, &table.view, &width, &out.view)) return nullptr;
    if (width < 1) return wrong_length("the width");
    const std::size_t count = out.size() / 8, rows = table.size() / whole(width);
    if (!out.holds(count, 8) || !values.holds(count, whole(width)) || !table.holds(rows, whole(width)) ||
        rows >= (std::size_t{1} << 31)) {
        return wrong_length("rows and results");
    }
    return run([&] { return tc::match_sorted(values.data(), count, table.data(), rows, whole(width), out.out()); });
}

PyObject* match_rows(PyObject*, PyObject* args) {
    Buffer values, table, salt, out;
    Size width;
    if (!PyArg_ParseTuple(args, "y*y*ny*w*", &values.view, &table.view, &width, &salt.view, &out.view)) return nullptr;
    if (width < 1 || !salt.holds(1, 16)) return wrong_length("the width and the salt");
    const std::size_t count = out.size() / 8, rows = table.size() / whole(width);
    if (!out.holds(count, 8) || !values.holds(count, whole(width)) || !table.holds(rows, whole(width)) ||
        rows >= (std::size_t{1} << 31)) {
        return wrong_length("rows and results");
    }
    return run([&] {
        tc::match_rows(values.data(), count, table.data(), rows, whole(width), salt.data(), out.out());
    });
}

constexpr std::size_t kShortestCode = 64;

bool code_fits(const Buffer& vector) {
    const std::size_t size = vector.size() / kBlockSize;
    return vector.holds(size, kBlockSize) && size >= kShortestCode && size < (std::size_t{1} << 32);
}

PyObject* code_convolve(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer key, vector;
    if (!PyArg_ParseTuple(args, "Iy*w*", &use, &key.view, &vector.view)) return nullptr;
    if (!key.holds(1, 16) || !code_fits(vector)) return wrong_length("the key and the vector");
    return run([&] {
        return tc::code_convolve(dispatch(use), key.data(), vector.out(), vector.size() / kBlockSize);
    });
}

PyObject* code_expand(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer vector, systematic, key, out;
    Size first;
    if (!PyArg_ParseTuple(args, "Iy*y*y*nw*", &use, &vector.view, &systematic.view, &key.view, &first, &out.view)) {
        return nullptr;
    }
    const std::size_t count = out.size() / kBlockSize, size = vector.size() / kBlockSize;
    if (!key.holds(1, 16) || !code_fits(vector)) return wrong_length("the key and the vector");
    if (!out.holds(count, 16) || !systematic.holds(count, 16) || first < 0 || whole(first) > size ||
        count > size - whole(first)) {
        return wrong_length("rows and results");
    }
    return run([&] {
        tc::code_expand(dispatch(use), vector.data(), size, systematic.data(), key.data(), whole(first), count,
                        out.out());
    });
}

}  // namespace

PyMethodDef kVoleMethods[] = {
    TC_METHOD(aes128_ctr),
    TC_METHOD(aes128_hash),
    TC_METHOD(gf128_mul),
    TC_METHOD(okvs_encode),
    TC_METHOD(okvs_decode),
    TC_METHOD(pprf_expand),
    TC_METHOD(pprf_puncture),
    TC_METHOD(match_rows),
    TC_METHOD(sort_rows),
    TC_METHOD(match_sorted),
    TC_METHOD(aes128_davies_meyer),
    TC_METHOD(gf128_dot),
    TC_METHOD(code_convolve),
    TC_METHOD(code_expand),
    kNoMoreMethods,
};

}  // namespace tc::bindings
