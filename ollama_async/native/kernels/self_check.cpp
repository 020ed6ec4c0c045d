#include "self_check.h"

#include "ggml-cpu.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace own {

Random::Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 1) {}

uint64_t Random::bits() {  // xorshift64*
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1Du;
}

int64_t Random::below(int64_t limit) {
    return static_cast<int64_t>((bits() >> 1) % static_cast<uint64_t>(limit));
}

float Random::uniform() {
    return static_cast<float>(static_cast<int64_t>(bits()) >> 40) * 0x1p-23f;
}

float Random::normal() {
    float sum = 0;
    for (int each = 0; each < 12; each++) {
        sum += uniform();
    }
    return sum * 0.5f;
}

std::string format(const char * text, ...) {
    char buffer[256];
    va_list values;
    va_start(values, text);
    std::vsnprintf(buffer, sizeof buffer, text, values);
    va_end(values);
    return buffer;
}

Tensors::Tensors()
    : context(ggml_init({ggml_tensor_overhead() * 32 + ggml_graph_overhead(), nullptr, true})) {}

void Tensors::allocate(ggml_backend_buffer_type_t type) {
    buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(context.get(), type));
}

ggml_backend_buffer_type_t find_buffer_type() {
    ggml_backend_dev_t device = ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0);
    auto list =
        reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(ggml_backend_reg_get_proc_address(
            ggml_backend_cpu_reg(), "ggml_backend_dev_get_extra_bufts"));
    for (ggml_backend_buffer_type_t * type = list(device); *type; type++) {
        if (std::strcmp(ggml_backend_buft_name(*type), "CPU_OWN") == 0) {
            return *type;
        }
    }
    return nullptr;
}

std::vector<float> compute(ggml_tensor * result, Tensors & tensors, int threads) {
    ggml_backend_t cpu = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(cpu, threads);
    ggml_cgraph * graph = ggml_new_graph(tensors.context.get());
    ggml_build_forward_expand(graph, result);
    ggml_backend_graph_compute(cpu, graph);
    std::vector<float> values(static_cast<size_t>(ggml_nelements(result)));
    ggml_backend_tensor_get(result, values.data(), 0, ggml_nbytes(result));
    ggml_backend_free(cpu);
    return values;
}

}  // namespace own

// What is wrong with the kernels here, or "" if nothing is; then the types of weights that were
// tried follow after a line feed. own_register() must have been called. Valid until the next call.
extern "C" __attribute__((visibility("default"))) const char * own_self_check(bool is_full) {
    static std::string found;
    const own::Depth depth = is_full ? own::Depth::full : own::Depth::quick;
    std::string tried;
    found = own::check_products(depth, tried);
    if (found.empty()) {
        found = own::check_attention(depth);
    }
    found += "\n" + tried;
    return found.c_str();
}
