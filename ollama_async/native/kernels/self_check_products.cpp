// Products are compared with those of the dequantized weights, summed in float64.
//
// The kernels round each block of activations to 8 bits. Where activations are such numbers
// already, only the rounding of float32 remains (EXACT). For others, the error of an output is
// about normal; its deviation is 0.006 times the size of a typical product, which is the root of
// the sum of |w|^2 |x|^2 / BLOCK over the blocks. ROUNDED is for one output, ROUNDED_MEAN for many
// together.
#include "self_check.h"

#include "products.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace own {

namespace {

constexpr double EXACT = 1e-3;
constexpr double ROUNDED = 0.05;
constexpr double ROUNDED_MEAN = 0.01;
constexpr int64_t BLOCK = 32;
constexpr int THREADS = 3;

enum class Activations { exact, normal, extreme, broken };

const char * name_of(Activations kind) {
    return std::array<const char *, 4>{
        "exact", "normal", "extreme", "broken"}[static_cast<size_t>(kind)];
}

struct Shape {
    ggml_type type;
    int64_t rows;     // of the matrix: outputs
    int64_t length;   // of its rows
    int64_t experts;  // 0: no MUL_MAT_ID
};

// A matrix, or one for each expert, packed and dequantized.
class Weights {
  public:
    Weights(const Shape & shape, bool is_random, Random & random) : shape_(shape) {
        ggml_context * context = tensors_.context.get();
        tensor_ = shape.experts ? ggml_new_tensor_3d(
                                      context, shape.type, shape.length, shape.rows, shape.experts)
                                : ggml_new_tensor_2d(context, shape.type, shape.length, shape.rows);
        tensors_.allocate(find_buffer_type());
        const int64_t rows = ggml_nrows(tensor_);
        std::vector<char> data(ggml_nbytes(tensor_));
        values_.resize(static_cast<size_t>(rows * shape.length));
        if (is_random) {
            std::generate(
                data.begin(), data.end(), [&] { return static_cast<char>(random.bits() >> 56); });
        } else {
            std::generate(values_.begin(), values_.end(), [&] { return random.normal(); });
            ggml_quantize_chunk(
                shape.type, values_.data(), data.data(), 0, rows, shape.length, nullptr);
        }
        if (shape.type == GGML_TYPE_F32) {
            std::memcpy(values_.data(), data.data(), data.size());
        } else {
            ggml_get_type_traits(shape.type)
                ->to_float(data.data(), values_.data(), rows * shape.length);
        }
        ggml_backend_tensor_set(tensor_, data.data(), 0, data.size());
    }

    ggml_tensor * tensor() const { return tensor_; }

    const float * row(int64_t expert, int64_t row) const {
        return values_.data() + (expert * shape_.rows + row) * shape_.length;
    }

  private:
    Shape shape_;
    Tensors tensors_;
    ggml_tensor * tensor_;
    std::vector<float> values_;
};

std::vector<float> make_activations(
    Activations kind, int64_t count, int64_t length, Random & random) {
    std::vector<float> values(static_cast<size_t>(count * length));
    for (int64_t at = 0; at < count * length; at++) {
        float & value = values[static_cast<size_t>(at)];
        switch (kind) {
            case Activations::exact:  // each block has the largest number
                value = at % BLOCK == 5 ? 127.f : static_cast<float>(random.below(255) - 127);
                value *= 0x1p-5f;
                break;
            case Activations::normal:
                value = random.normal();
                break;
            case Activations::extreme:  // blocks of zeros, of tiny and of huge numbers
                value =
                    random.normal() * std::array<float, 4>{0.f, 1e-30f, 1.f, 1e6f}[at / BLOCK % 4];
                break;
            case Activations::broken:
                value = at % 7 ? random.normal() : at % 2 ? NAN : INFINITY;
                break;
        }
    }
    return values;
}

// The experts of each row of activations: for a plain product, always 0.
struct Batch {
    std::vector<float> activations;
    std::vector<int32_t> experts;
    int64_t count;
    int64_t used;  // experts for each token; 1 for a plain product
};

std::vector<float> multiply(
    const Weights & weights, const Shape & shape, const Batch & batch, int threads) {
    Tensors tensors;
    ggml_context * context = tensors.context.get();
    ggml_tensor * activations;
    ggml_tensor * experts = nullptr;
    ggml_tensor * result;
    if (shape.experts) {
        activations = ggml_new_tensor_3d(context, GGML_TYPE_F32, shape.length, 1, batch.count);
        experts = ggml_new_tensor_2d(context, GGML_TYPE_I32, batch.used, batch.count);
        result = ggml_mul_mat_id(context, weights.tensor(), activations, experts);
    } else {
        activations = ggml_new_tensor_2d(context, GGML_TYPE_F32, shape.length, batch.count);
        result = ggml_mul_mat(context, weights.tensor(), activations);
    }
    tensors.allocate(ggml_backend_cpu_buffer_type());
    ggml_backend_tensor_set(activations, batch.activations.data(), 0, ggml_nbytes(activations));
    if (experts) {
        ggml_backend_tensor_set(experts, batch.experts.data(), 0, ggml_nbytes(experts));
    }
    return compute(result, tensors, threads);
}

// One token of `batch`, alone.
Batch only(const Batch & batch, int64_t token, int64_t length) {
    const auto row = batch.activations.begin() + token * length;
    const auto experts = batch.experts.begin() + token * batch.used;
    return {{row, row + length}, {experts, experts + batch.used}, 1, batch.used};
}

std::string compare(
    const Weights & weights, const Shape & shape, const Batch & batch,
    const std::vector<float> & found, double bound, double bound_mean) {
    double errors = 0;
    int64_t outputs = 0;
    for (int64_t row = 0; row < batch.count * batch.used; row++) {
        const float * x = batch.activations.data() + row / batch.used * shape.length;
        const int64_t expert = shape.experts ? batch.experts[static_cast<size_t>(row)] : 0;
        for (int64_t output = 0; output < shape.rows; output++) {
            const float * w = weights.row(expert, output);
            double sum = 0, squares = 0, largest = 0;
            for (int64_t begin = 0; begin < shape.length; begin += BLOCK) {
                double w_squares = 0, x_squares = 0;
                for (int64_t at = begin; at < begin + BLOCK; at++) {
                    sum += static_cast<double>(w[at]) * x[at];
                    w_squares += static_cast<double>(w[at]) * w[at];
                    x_squares += static_cast<double>(x[at]) * x[at];
                }
                squares += w_squares * x_squares / BLOCK;
                largest = std::max(largest, w_squares);
            }
            const double scale = std::sqrt(squares);
            if (!(scale < 1e15 && largest < 1e30)) {  // random bytes can be infinite weights
                continue;
            }
            const double error =
                std::abs(found[static_cast<size_t>(row * shape.rows + output)] - sum);
            if (!(error <= bound * scale + 1e-30)) {
                return format(
                    "output %d of row %d is off by %.2g (bound %.2g)", static_cast<int>(output),
                    static_cast<int>(row), error / scale, bound);
            }
            errors += scale > 0 ? error * error / (scale * scale) : 0;
            outputs++;
        }
    }
    const double mean = std::sqrt(errors / static_cast<double>(std::max<int64_t>(outputs, 1)));
    return mean <= bound_mean || outputs < 64 ? "" : format("off by %.2g in the mean", mean);
}

bool is_same(const float * one, const float * other, int64_t count) {
    return std::memcmp(one, other, static_cast<size_t>(count) * sizeof(float)) == 0;
}

std::string check_batch(
    const Weights & weights, const Shape & shape, Activations kind, int64_t count, bool is_random,
    Random & random) {
    Batch batch{
        make_activations(kind, count, shape.length, random), {}, count, shape.experts ? 2 : 1};
    for (int64_t at = 0; at < count * batch.used; at++) {
        // two different ones for each token; all tokens share one, so that some have many rows
        const int64_t choices = std::max<int64_t>(shape.experts - 1, 1);
        batch.experts.push_back(at % 2 ? 0 : static_cast<int32_t>(1 + random.below(choices)));
    }
    const std::vector<float> found = multiply(weights, shape, batch, 1);
    if (kind == Activations::broken) {
        return "";  // nothing is right, but it has come here
    }
    const bool is_exact = kind == Activations::exact;
    const bool is_mean = kind == Activations::normal && !is_random;
    std::string wrong = compare(
        weights, shape, batch, found, is_exact ? EXACT : ROUNDED, is_mean ? ROUNDED_MEAN : 1);
    if (!wrong.empty()) {
        return wrong;
    }
    const std::vector<float> parallel = multiply(weights, shape, batch, THREADS);
    if (!is_same(found.data(), parallel.data(), static_cast<int64_t>(found.size()))) {
        return "depends on the number of threads";
    }
    const int64_t row_size = shape.rows * batch.used;
    for (int64_t token = 0; token < count; token += std::max<int64_t>(1, count / 4)) {
        const std::vector<float> alone =
            multiply(weights, shape, only(batch, token, shape.length), 1);
        if (!is_same(found.data() + token * row_size, alone.data(), row_size)) {
            return format("row %d depends on the others", static_cast<int>(token));
        }
    }
    return "";
}

std::string check_shape(const Shape & shape, const std::vector<int64_t> & counts, Depth depth) {
    Random random(static_cast<uint64_t>(shape.type) * 1000 + static_cast<uint64_t>(shape.rows));
    const bool can_quantize = !ggml_quantize_requires_imatrix(shape.type);
    for (bool is_random : {false, true}) {
        if (is_random ? depth == Depth::quick && can_quantize : !can_quantize) {
            continue;
        }
        const Weights weights(shape, is_random, random);
        for (int64_t count : counts) {
            for (auto kind :
                 {Activations::exact, Activations::normal, Activations::extreme,
                  Activations::broken}) {
                if (depth == Depth::quick && kind != Activations::exact && count != counts.back()) {
                    continue;
                }
                const std::string wrong =
                    check_batch(weights, shape, kind, count, is_random, random);
                if (!wrong.empty()) {
                    return format(
                        "%s%s, %dx%d, %d %s rows: %s", ggml_type_name(shape.type),
                        shape.experts ? " of experts" : "", static_cast<int>(shape.rows),
                        static_cast<int>(shape.length), static_cast<int>(count), name_of(kind),
                        wrong.c_str());
                }
            }
        }
    }
    return "";
}

// Whether a model would have such weights packed.
bool is_packed(const Shape & shape) {
    Tensors tensors;
    ggml_context * context = tensors.context.get();
    ggml_tensor * weights =
        shape.experts
            ? ggml_new_tensor_3d(context, shape.type, shape.length, shape.rows, shape.experts)
            : ggml_new_tensor_2d(context, shape.type, shape.length, shape.rows);
    if (!can_pack(weights)) {
        return false;
    }
    ggml_tensor * op;
    if (shape.experts) {
        ggml_tensor * activations = ggml_new_tensor_3d(context, GGML_TYPE_F32, shape.length, 1, 8);
        ggml_tensor * experts = ggml_new_tensor_2d(context, GGML_TYPE_I32, 2, 8);
        op = ggml_mul_mat_id(context, weights, activations, experts);
    } else {
        op = ggml_mul_mat(
            context, weights, ggml_new_tensor_2d(context, GGML_TYPE_F32, shape.length, 8));
    }
    std::unique_ptr<ggml_backend_buffer, FreeBuffer> none(
        ggml_backend_buft_alloc_buffer(find_buffer_type(), 0));
    weights->buffer = none.get();
    return supports_product(op);
}

}  // namespace

std::string check_products(Depth depth, std::string & tried) {
    const bool is_full = depth == Depth::full;
    if (is_packed({GGML_TYPE_F32, 1, 4096, 8192})) {
        return "many small matrices would take sixteen times their memory";
    }
    const std::vector<int64_t> counts = is_full ? std::vector<int64_t>{1, 2, 3, 7, 8, 16, 33, 256}
                                                : std::vector<int64_t>{1, 3, 8, 33};
    for (int number = 0; number < GGML_TYPE_COUNT; number++) {
        const auto type = static_cast<ggml_type>(number);
        const ggml_type_traits * traits = ggml_get_type_traits(type);
        if (!traits->to_float && type != GGML_TYPE_F32) {
            continue;
        }
        const int64_t block = std::max<int64_t>(traits->blck_size, 32);
        std::vector<Shape> shapes = {{type, 37, 2 * block, 0}, {type, 33, block, 4}};
        if (is_full) {
            shapes.insert(
                shapes.end(), {{type, 16, block, 0},
                               {type, 5, 3 * block, 0},
                               {type, 160, 768, 0},
                               {type, 64, 2 * block, 3}});
        }
        bool is_tried = false;
        for (const Shape & shape : shapes) {
            if (!is_packed(shape)) {
                continue;
            }
            is_tried = true;
            std::string wrong = check_shape(shape, counts, depth);
            if (!wrong.empty()) {
                return wrong;
            }
        }
        if (is_tried) {
            tried += (tried.empty() ? "" : " ") + std::string(ggml_type_name(type));
        }
    }
    return "";
}

}  // namespace own
