// Which instruction sets may be used on this processor.
#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace tc {

u32 detect() {
    u32 found = 0;
#if defined(__x86_64__)
    // __builtin_cpu_supports does not know SHA in the oldest compilers we take.
    unsigned a, b, c, d;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29)) && __builtin_cpu_supports("ssse3") &&
        __builtin_cpu_supports("sse4.1")) {
        found |= kShaNi;
    }
    if (__builtin_cpu_supports("avx2")) found |= kAvx2;
    if (__get_cpuid_count(1, 0, &a, &b, &c, &d) && (c & (1u << 25)) && __builtin_cpu_supports("sse4.1")) {
        found |= kAesNi;
        const bool avx2 = __builtin_cpu_supports("avx2");  // and the system keeps its registers
        if (avx2 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & (1u << 9))) found |= kVaes;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found |= kFma;
    if (__builtin_cpu_supports("pclmul") && __builtin_cpu_supports("ssse3")) found |= kClmul;
#endif
    return found;
}

Dispatch dispatch(u32 allowed) {
    Dispatch chosen = {kSha256Portable, kCurvePortable, kAes128Portable,
                       kGf128Portable,  kPirPortable,   kNttPortable,   kRingPortable};
#if defined(__x86_64__)
    const u32 usable = allowed & detect();
    if (usable & kShaNi) chosen.sha256 = kSha256ShaNi;
    if (usable & kAvx2) chosen.curve = kCurveAvx2;
    if (usable & kAvx2) chosen.pir = kPirAvx2;
    if (usable & kAesNi) chosen.aes = kAes128Ni;
    if (usable & kVaes) chosen.aes = kAes128Vaes;
    if (usable & kClmul) chosen.gf128 = kGf128Clmul;
    if (usable & kFma) chosen.ntt = kNttFma;
    if (usable & kAvx2) chosen.ring = kRingAvx2;
#else
    static_cast<void>(allowed);
#endif
    return chosen;
}

}  // namespace tc
