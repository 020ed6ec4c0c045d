// Whether the kernels compute what they should on this machine. They are asked through ggml's
// public interface, as a model does it, and compared with sums in float64.
#pragma once

#include "ggml-backend.h"
#include "ggml.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace own {

// How much is tried: what a first start can afford, or all.
enum class Depth { quick, full };

// "" or what is wrong. `tried` gets the names of the types of weights that can be packed.
std::string check_products(Depth depth, std::string & tried);
std::string check_attention(Depth depth);

// Numbers that look random, the same on every machine.
class Random {
  public:
    explicit Random(uint64_t seed);
    uint64_t bits();
    int64_t below(int64_t limit);
    float uniform();  // from -1 to 1
    float normal();   // mean 0, about normal

  private:
    uint64_t state_;
};

// A printf() into a string.
std::string format(const char * text, ...) __attribute__((format(printf, 1, 2)));

struct FreeContext {
    void operator()(ggml_context * context) const { ggml_free(context); }
};

struct FreeBuffer {
    void operator()(ggml_backend_buffer_t buffer) const { ggml_backend_buffer_free(buffer); }
};

// Tensors without memory of their own, and the memory that they get at last.
struct Tensors {
    Tensors();
    void allocate(ggml_backend_buffer_type_t type);

    std::unique_ptr<ggml_context, FreeContext> context;
    std::unique_ptr<ggml_backend_buffer, FreeBuffer> buffer;
};

// Our buffer type, as the library finds it; nullptr before own_register().
ggml_backend_buffer_type_t find_buffer_type();

// Compute `result` on so many threads, and return its values. Its inputs must have been set.
std::vector<float> compute(ggml_tensor * result, Tensors & tensors, int threads);

}  // namespace own
