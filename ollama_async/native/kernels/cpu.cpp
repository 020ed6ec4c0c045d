#include "cpu.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace own {

namespace {

#if defined(__x86_64__)
// GCC 10 does not know its name.
bool has_avx_vnni() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}

// Int8 tiles: the CPU has them, the system saves their registers, and lets this process use them.
bool may_use_amx() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx >> 27 & 1)) {  // OSXSAVE: there is XGETBV
        return false;
    }
    unsigned saved = 0;
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(edx) : "c"(0));
    constexpr unsigned tile_state = 3u << 17;
    constexpr unsigned tile_and_int8 = 3u << 24;
    if ((saved & tile_state) != tile_state || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) ||
        (edx & tile_and_int8) != tile_and_int8) {
        return false;
    }
    constexpr int request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM; asked again, it is granted again
    constexpr int tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#endif

bool has(Isa isa) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("f16c");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512vnni");
    switch (isa) {
        case Isa::none:
            return true;
        case Isa::avx2:
            return avx2;
        case Isa::avx2_vnni:
            return avx2 && has_avx_vnni();
        case Isa::avx512_vnni:
            return avx512;
        case Isa::amx:
            return avx512 && may_use_amx();
    }
#endif
    return isa == Isa::none;
}

constexpr std::array<Isa, 5> by_speed = {Isa::amx, Isa::avx512_vnni, Isa::avx2_vnni, Isa::avx2, Isa::none};

Isa best() {
    for (Isa isa : by_speed) {
        if (has(isa)) {
            return isa;
        }
    }
    return Isa::none;
}

Isa & selected() {
    static Isa isa = best();
    return isa;
}

}  // namespace

Isa isa() {
    return selected();
}

bool select_isa(const char * name) {
    if (!*name) {
        selected() = best();
        return true;
    }
    for (Isa isa : by_speed) {
        if (std::strcmp(name, isa_name(isa)) == 0 && has(isa)) {
            selected() = isa;
            return true;
        }
    }
    return false;
}

const char * isa_name(Isa isa) {
    switch (isa) {
        case Isa::none:
            return "none";
        case Isa::avx2:
            return "avx2";
        case Isa::avx2_vnni:
            return "avx2_vnni";
        case Isa::avx512_vnni:
            return "avx512_vnni";
        case Isa::amx:
            return "amx";
    }
    return "none";
}

}  // namespace own
