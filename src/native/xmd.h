// expand_message_xmd of RFC 9380 §5.3.1 with SHA-512, for messages under one domain separation tag.
#pragma once

#include "sha2.h"

namespace tc {

class Expander {
   public:
    // dst: 1 to 255 bytes, kept by reference; length: bytes to make, 1 to 255 * 64.
    Expander(const u8* dst, std::size_t dst_size, std::size_t length);

    void expand(const u8* message, std::size_t size, u8* out) const;

   private:
    void add_tag(Sha512& hash) const;

    const u8* dst_;
    std::size_t dst_size_, length_;
    Sha512State after_pad_;  // every message follows a block of zeros (Z_pad)
};

}  // namespace tc
