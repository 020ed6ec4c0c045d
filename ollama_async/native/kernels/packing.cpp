#include "packing.h"

#include "products.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace own {

namespace {

constexpr size_t bytes_per_thread = 2 << 20;  // packing less takes no longer than starting a thread

int most_threads = 0;
bool is_file_mapped = false;

// The pages that lie entirely in [data, data + size): should anyone need them, they are read again.
void give_back(const void * data, size_t size) {
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + size) / page * page;
    if (begin < end) {
        madvise(reinterpret_cast<void *>(begin), end - begin, MADV_DONTNEED);
    }
}

}  // namespace

void configure_packing(int threads, bool is_mapped) {
    most_threads = threads;
    is_file_mapped = is_mapped;
}

void pack(const ggml_tensor * weights, const void * data) {
    const size_t size = ggml_nbytes(weights);
    const int64_t units = pack_units(weights);
    std::atomic<int64_t> next{0};
    auto work = [&] {
        for (int64_t unit; (unit = next.fetch_add(1)) < units;) {
            pack_unit(weights, data, unit);
        }
    };
    const int64_t cores = most_threads > 0 ? most_threads : std::thread::hardware_concurrency();
    const int64_t threads =
        std::min({cores, units, static_cast<int64_t>(size / bytes_per_thread + 1)});
    std::vector<std::thread> helpers;
    helpers.reserve(static_cast<size_t>(std::max<int64_t>(threads, 1)));
    try {
        for (int64_t each = 1; each < threads; each++) {
            helpers.emplace_back(work);
        }
    } catch (const std::system_error &) {  // the process may not have more: fewer will do
    }
    work();
    for (auto & helper : helpers) {
        helper.join();
    }
    if (is_file_mapped) {
        give_back(data, size);
    }
}

}  // namespace own
