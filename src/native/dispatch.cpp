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
#endif
    return found;
}

Dispatch dispatch(u32 allowed) {
    Dispatch chosen = {kSha256Portable, kCurvePortable};
#if defined(__x86_64__)
    const u32 usable = allowed & detect();
    if (usable & kShaNi) chosen.sha256 = kSha256ShaNi;
    if (usable & kAvx2) chosen.curve = kCurveAvx2;
#else
    static_cast<void>(allowed);
#endif
    return chosen;
}

}  // namespace tc
