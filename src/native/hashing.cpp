// Hashes over rows of equal width: expand_message_xmd (RFC 9380 §5.3.1) and the OPRF's last hash (RFC 9497 §3.3.1).
// Constant time in the bytes hashed.
#include "kernels.h"
#include "xmd.h"

namespace tc {

Expander::Expander(const u8* dst, std::size_t dst_size, std::size_t length)
    : dst_(dst), dst_size_(dst_size), length_(length), after_pad_(kSha512Initial) {
    const u8 pad[128] = {};
    sha512_compress(after_pad_, pad);
}

void Expander::add_tag(Sha512& hash) const {  // DST_prime
    hash.update(dst_, dst_size_);
    hash.update(static_cast<u8>(dst_size_));
}

void Expander::expand(const u8* message, std::size_t size, u8* out) const {
    u8 first[64], block[64] = {};  // b_0 and b_i
    Sha512 hash(after_pad_, 128);
    hash.update(message, size);
    hash.update(static_cast<u8>(length_ >> 8));
    hash.update(static_cast<u8>(length_));
    hash.update(0);
    add_tag(hash);
    hash.finish(first);
    for (std::size_t done = 0; done < length_; done += 64) {
        for (int i = 0; i < 64; ++i) block[i] ^= first[i];
        Sha512 next;
        next.update(block, 64);
        next.update(static_cast<u8>(done / 64 + 1));
        add_tag(next);
        next.finish(block);
        std::memcpy(out + done, block, length_ - done < 64 ? length_ - done : 64);
    }
}

void expand_message_xmd(const u8* messages, std::size_t width, const u8* dst, std::size_t dst_size,
                        std::size_t length, std::size_t count, u8* out) {
    const Expander expander(dst, dst_size, length);
    for (std::size_t i = 0; i < count; ++i) expander.expand(messages + width * i, width, out + length * i);
}

void oprf_finalize(const u8* inputs, std::size_t width, const u8* elements, std::size_t count, u8* out) {
    const u8 input_size[2] = {static_cast<u8>(width >> 8), static_cast<u8>(width)}, element_size[2] = {0, 32};
    const u8 label[] = {'F', 'i', 'n', 'a', 'l', 'i', 'z', 'e'};
    for (std::size_t i = 0; i < count; ++i) {
        Sha512 hash;
        hash.update(input_size, 2);
        hash.update(inputs + width * i, width);
        hash.update(element_size, 2);
        hash.update(elements + 32 * i, 32);
        hash.update(label, sizeof label);
        hash.finish(out + 64 * i);
    }
}

}  // namespace tc
