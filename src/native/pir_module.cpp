// The Python face of the kernels of verification, a part of trustcompute.kernels._native.
#include "bindings.h"

namespace tc::bindings {
namespace {

using Size = Py_ssize_t;

u32* words(Buffer& buffer) { return reinterpret_cast<u32*>(buffer.out()); }

// Whether a buffer holds count rows of so many words, at an address where words may lie.
bool holds_words(const Buffer& buffer, std::size_t count, std::size_t width) {
    return reinterpret_cast<std::uintptr_t>(buffer.data()) % 4 == 0 && buffer.size() % 4 == 0 &&
           (width == 0 ? buffer.size() == 0 : buffer.holds(count, 4 * width));
}

PyObject* pir_answer(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer database, queries, out;
    Size number;
    if (!PyArg_ParseTuple(args, "Iy*y*nw*", &use, &database.view, &queries.view, &number, &out.view)) return nullptr;
    if (number < 1 || number > (Size{1} << 31)) return wrong_length("the number of queries");
    const std::size_t count = static_cast<std::size_t>(number);
    const std::size_t columns = queries.size() / (4 * count), rows = out.size() / (4 * count);
    if (!holds_words(queries, count, columns) || !holds_words(out, rows, count) ||
        (columns == 0 ? database.size() != 0 : !database.holds(rows, columns))) {
        return wrong_length("database, queries and results");
    }
    return run([&] {
        return tc::pir_answer(dispatch(use), database.data(), rows, columns, words(queries), count, words(out));
    });
}

PyObject* pir_multiply(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer database, matrix, out;
    Size width;
    if (!PyArg_ParseTuple(args, "Iy*y*nw*", &use, &database.view, &matrix.view, &width, &out.view)) return nullptr;
    if (width < 1 || width > (Size{1} << 31)) return wrong_length("the width");
    const std::size_t wide = static_cast<std::size_t>(width);
    const std::size_t columns = matrix.size() / (4 * wide), rows = out.size() / (4 * wide);
    if (!holds_words(matrix, columns, wide) || !holds_words(out, rows, wide) ||
        (columns == 0 ? database.size() != 0 : !database.holds(rows, columns))) {
        return wrong_length("database, matrix and results");
    }
    return run([&] {
        return tc::pir_multiply(dispatch(use), database.data(), rows, columns, words(matrix), wide, words(out));
    });
}

PyObject* word_product(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer matrix, vector, out;
    if (!PyArg_ParseTuple(args, "Iy*y*w*", &use, &matrix.view, &vector.view, &out.view)) return nullptr;
    const std::size_t rows = out.size() / 4, columns = vector.size() / 4;
    if (!holds_words(vector, columns, 1) || !holds_words(out, rows, 1) || !holds_words(matrix, rows, columns)) {
        return wrong_length("matrix, vector and results");
    }
    return run([&] {
        return tc::word_product(dispatch(use), words(matrix), rows, columns, words(vector), words(out));
    });
}

PyObject* lwe_product(PyObject*, PyObject* args) {
    unsigned int use;
    Buffer keys, secret, out;
    Size rows;
    if (!PyArg_ParseTuple(args, "Iy*ny*w*", &use, &keys.view, &rows, &secret.view, &out.view)) return nullptr;
    const std::size_t count = keys.size() / kBlockSize, dimension = secret.size() / 4;
    if (rows < 1 || !keys.holds(count, kBlockSize) || dimension == 0 || dimension % 4 != 0 ||
        !holds_words(secret, dimension, 1) || !holds_words(out, count, static_cast<std::size_t>(rows))) {
        return wrong_length("keys, secret and results");
    }
    return run([&] {
        return tc::lwe_product(dispatch(use), keys.data(), count, static_cast<std::size_t>(rows), words(secret),
                               dimension, words(out));
    });
}

}  // namespace

PyMethodDef kPirMethods[] = {
    TC_METHOD(pir_answer),
    TC_METHOD(pir_multiply),
    TC_METHOD(word_product),
    TC_METHOD(lwe_product),
    kNoMoreMethods,
};

}  // namespace tc::bindings
