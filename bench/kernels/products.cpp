// Times and checks matrix products of our kernels beside the stock library's, in one process and
// one thread, in pairs: CPU time, so a busy machine disturbs both alike.
//
//   products LIBRARY check [TYPE...]     errors, invariance, threads, experts, hostile bytes
//
//   products LIBRARY time TYPE M K LAYERS ROWS...
//
// Build with HEADERS = site-packages/llama_cpp/headers and LIB = site-packages/llama_cpp/lib:
//
//   g++ -std=c++17 -O2 bench/kernels/products.cpp -IHEADERS/ggml/include -LLIB
//       -lggml-cpu -lggml-base -ldl -Wl,-rpath,LIB -o products
//
// LIBRARY is our kernels' shared library. LAYERS matrices are multiplied in turn, so that together
// they are larger than the caches. "stock" is the best that the stock library offers for the type.
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <dlfcn.h>
#include <random>
#include <string>
#include <vector>

namespace {

double cpu_seconds() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

[[noreturn]] void fail(const std::string & why) {
    std::fprintf(stderr, "%s\n", why.c_str());
    std::exit(1);
}

ggml_type type_of(const std::string & name) {
    for (int each = 0; each < GGML_TYPE_COUNT; each++) {
        const char * known = ggml_type_name(static_cast<ggml_type>(each));
        if (known && name == known) {
            return static_cast<ggml_type>(each);
        }
    }
    fail("unknown type " + name);
}

// The extra buffer type with this name; nullptr: there is none.
ggml_backend_buffer_type_t extra_buffer_type(ggml_backend_t cpu, const std::string & name) {
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(cpu));
    auto get = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
        ggml_backend_reg_get_proc_address(reg, "ggml_backend_dev_get_extra_bufts"));
    for (auto each = get(ggml_backend_get_device(cpu)); each && *each; each++) {
        if (ggml_backend_buft_name(*each) == name) {
            return *each;
        }
    }
    return nullptr;
}

std::mt19937 generator(1);

std::vector<float> normal(size_t count, float scale) {
    std::normal_distribution<float> distribution(0, scale);
    std::vector<float> values(count);
    for (float & value : values) {
        value = distribution(generator);
    }
    return values;
}

struct Matrix {
    ggml_type type;
    int64_t rows, values, experts;
    std::vector<uint8_t> file;
    std::vector<float> exact;

    Matrix(ggml_type type, int64_t rows, int64_t values, int64_t experts = 1)
        : type(type), rows(rows), values(values), experts(experts) {
        const std::vector<float> source = normal(rows * values * experts, 0.02F);
        const std::vector<float> importance(values, 1);
        file.resize(ggml_row_size(type, values) * rows * experts);
        exact.resize(source.size());
        if (type == GGML_TYPE_F32) {
            std::memcpy(file.data(), source.data(), file.size());
            exact = source;
        } else {
            ggml_quantize_chunk(
                type, source.data(), file.data(), 0, rows * experts, values, importance.data());
            ggml_get_type_traits(type)->to_float(file.data(), exact.data(), exact.size());
        }
    }
};

// `layers` copies of a matrix in one kind of buffer, and products with them.
class Products {
  public:
    Products(ggml_backend_t cpu, ggml_backend_buffer_type_t type, const Matrix & matrix, int layers)
        : cpu_(cpu), matrix_(matrix) {
        context_ = ggml_init({ggml_tensor_overhead() * (layers + 1), nullptr, true});
        for (int layer = 0; layer < layers; layer++) {
            weights_.push_back(ggml_new_tensor_3d(
                context_, matrix.type, matrix.values, matrix.rows, matrix.experts));
        }
        buffer_ = ggml_backend_alloc_ctx_tensors_from_buft(context_, type);
        for (ggml_tensor * each : weights_) {
            ggml_backend_tensor_set(each, matrix.file.data(), 0, matrix.file.size());
        }
    }

    ~Products() {
        free_graph();
        ggml_backend_buffer_free(buffer_);
        ggml_free(context_);
    }

    // Build the graph for `rows` rows of activations; with `ids` ([rows][used]), of experts.
    void prepare(
        const std::vector<float> & activations, int64_t rows,
        const std::vector<int32_t> & ids = {}) {
        free_graph();
        const size_t nodes = weights_.size() + 8;
        graph_context_ = ggml_init(
            {ggml_tensor_overhead() * 2 * nodes + ggml_graph_overhead_custom(nodes, false), nullptr,
             true});
        graph_ = ggml_new_graph_custom(graph_context_, nodes, false);
        ggml_tensor * x;
        ggml_tensor * chosen = nullptr;
        if (ids.empty()) {
            x = ggml_new_tensor_2d(graph_context_, GGML_TYPE_F32, matrix_.values, rows);
        } else {
            x = ggml_new_tensor_3d(graph_context_, GGML_TYPE_F32, matrix_.values, 1, rows);
            chosen = ggml_new_tensor_2d(graph_context_, GGML_TYPE_I32, ids.size() / rows, rows);
        }
        for (ggml_tensor * each : weights_) {
            result_ = chosen ? ggml_mul_mat_id(graph_context_, each, x, chosen)
                             : ggml_mul_mat(graph_context_, each, x);
            ggml_build_forward_expand(graph_, result_);
        }
        graph_buffer_ = ggml_backend_alloc_ctx_tensors_from_buft(
            graph_context_, ggml_backend_cpu_buffer_type());
        ggml_backend_tensor_set(x, activations.data(), 0, rows * matrix_.values * sizeof(float));
        if (chosen) {
            ggml_backend_tensor_set(chosen, ids.data(), 0, ids.size() * sizeof(int32_t));
        }
    }

    void run() { ggml_backend_graph_compute(cpu_, graph_); }

    std::vector<float> results() {
        std::vector<float> values(ggml_nelements(result_));
        ggml_backend_tensor_get(result_, values.data(), 0, values.size() * sizeof(float));
        return values;
    }

  private:
    void free_graph() {
        if (graph_context_) {
            ggml_backend_buffer_free(graph_buffer_);
            ggml_free(graph_context_);
            graph_context_ = nullptr;
        }
    }

    ggml_backend_t cpu_;
    const Matrix & matrix_;
    ggml_context * context_;
    ggml_backend_buffer_t buffer_;
    std::vector<ggml_tensor *> weights_;
    ggml_context * graph_context_ = nullptr;
    ggml_backend_buffer_t graph_buffer_ = nullptr;
    ggml_cgraph * graph_ = nullptr;
    ggml_tensor * result_ = nullptr;
};

double exact_product(const Matrix & matrix, int64_t row, const float * x) {
    double sum = 0;
    for (int64_t k = 0; k < matrix.values; k++) {
        sum += static_cast<double>(matrix.exact[row * matrix.values + k]) * x[k];
    }
    return sum;
}

bool is_float(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

int failures = 0;

void expect(bool condition, const char * type, const char * what, int64_t m, int64_t k, int64_t n) {
    if (!condition) {
        failures++;
        std::printf("%s M %ld K %ld rows %ld: %s\n", type, m, k, n, what);
    }
}

void check_dense(
    ggml_backend_t cpu, ggml_backend_buffer_type_t own, ggml_type type, int64_t m, int64_t k) {
    const char * name = ggml_type_name(type);
    const Matrix matrix(type, m, k);
    Products products(cpu, own, matrix, 1);
    constexpr int64_t most = 400;
    const std::vector<float> x = normal(most * k, 1);
    products.prepare(x, most);
    products.run();
    const std::vector<float> all = products.results();
    double error = 0;
    double size = 0;
    for (int64_t n = 0; n < most; n += 7) {
        for (int64_t row = 0; row < m; row++) {
            const double exact = exact_product(matrix, row, &x[n * k]);
            error += std::pow(all[n * m + row] - exact, 2);
            size += exact * exact;
        }
    }
    const double relative = std::sqrt(error / size);
    expect(relative < (is_float(type) ? 1e-6 : 8e-3), name, "error too large", m, k, most);
    for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 16, 33, 64, 256}) {
        const int64_t first = rows == 1 ? 3 : most - rows;
        products.prepare({x.begin() + first * k, x.end()}, rows);
        for (int threads : {1, 2, 5}) {
            ggml_backend_cpu_set_n_threads(cpu, threads);
            products.run();
            const std::vector<float> some = products.results();
            expect(
                !std::memcmp(some.data(), &all[first * m], some.size() * sizeof(float)), name,
                "bits depend on the batch", m, k, rows);
        }
        ggml_backend_cpu_set_n_threads(cpu, 1);
    }
    std::printf("%-7s M %4ld K %5ld error %.2e\n", name, m, k, relative);
}

void check_experts(
    ggml_backend_t cpu, ggml_backend_buffer_type_t own, ggml_type type, int64_t m, int64_t k) {
    const char * name = ggml_type_name(type);
    constexpr int64_t experts = 8, used = 3, tokens = 37;
    const Matrix matrix(type, m, k, experts);
    Products products(cpu, own, matrix, 1);
    const std::vector<float> x = normal(tokens * k, 1);
    std::vector<int32_t> ids;
    for (int64_t token = 0; token < tokens; token++) {
        for (int64_t slot = 0; slot < used; slot++) {
            ids.push_back((token * 5 + slot * 2) % experts);
        }
    }
    products.prepare(x, tokens, ids);
    ggml_backend_cpu_set_n_threads(cpu, 3);
    products.run();
    ggml_backend_cpu_set_n_threads(cpu, 1);
    const std::vector<float> all = products.results();
    for (int64_t expert = 0; expert < experts; expert++) {
        Matrix one = matrix;
        one.experts = 1;
        const size_t bytes = matrix.file.size() / experts;
        one.file.assign(
            matrix.file.begin() + expert * bytes, matrix.file.begin() + (expert + 1) * bytes);
        Products dense(cpu, own, one, 1);
        dense.prepare(x, tokens);
        dense.run();
        const std::vector<float> expected = dense.results();
        for (size_t each = 0; each < ids.size(); each++) {
            if (ids[each] == expert) {
                expect(
                    !std::memcmp(&all[each * m], &expected[each / used * m], m * sizeof(float)),
                    name, "an expert differs from a dense product", m, k, tokens);
            }
        }
    }
}

// Any bytes are weights: the products may be anything, and others stay what they are.
void check_hostile(ggml_backend_t cpu, ggml_backend_buffer_type_t own, ggml_type type) {
    Matrix matrix(type, 40, 512);
    for (uint8_t & byte : matrix.file) {
        byte = generator();
    }
    Products products(cpu, own, matrix, 1);
    for (int64_t rows : {1, 5, 40}) {
        std::vector<float> x = normal(rows * 512, 1);
        x[7] = NAN;
        products.prepare(x, rows);
        products.run();
        const std::vector<float> results = products.results();
        expect(std::isnan(results[3]), ggml_type_name(type), "NaN is lost", 40, 512, rows);
    }
}

// Matrices of a batch, each for two of the activations' matrices, which are a view with gaps.
void check_batch_of_matrices(
    ggml_backend_t cpu, ggml_backend_buffer_type_t own, ggml_type type, int64_t m, int64_t k) {
    constexpr int64_t matrices = 3, rows = 5, gap = 7;
    const Matrix matrix(type, m, k, matrices);
    ggml_context * context = ggml_init({ggml_tensor_overhead() * 8, nullptr, true});
    ggml_tensor * weights = ggml_new_tensor_3d(context, type, k, m, matrices);
    ggml_backend_buffer_t packed = ggml_backend_alloc_ctx_tensors_from_buft(context, own);
    ggml_backend_tensor_set(weights, matrix.file.data(), 0, matrix.file.size());
    ggml_context * others =
        ggml_init({ggml_tensor_overhead() * 8 + ggml_graph_overhead(), nullptr, true});
    ggml_tensor * all = ggml_new_tensor_4d(others, GGML_TYPE_F32, k, rows + gap, 2 * matrices, 2);
    ggml_tensor * some = ggml_view_4d(
        others, all, k, rows, 2 * matrices, 2, all->nb[1], all->nb[2], all->nb[3], all->nb[1]);
    ggml_tensor * product = ggml_mul_mat(others, weights, some);
    ggml_cgraph * graph = ggml_new_graph(others);
    ggml_build_forward_expand(graph, product);
    ggml_backend_buffer_t plain =
        ggml_backend_alloc_ctx_tensors_from_buft(others, ggml_backend_cpu_buffer_type());
    const std::vector<float> x = normal(ggml_nelements(all), 1);
    ggml_backend_tensor_set(all, x.data(), 0, ggml_nbytes(all));
    ggml_backend_graph_compute(cpu, graph);
    std::vector<float> found(ggml_nelements(product));
    ggml_backend_tensor_get(product, found.data(), 0, ggml_nbytes(product));
    double error = 0;
    double size = 0;
    for (size_t at = 0; at < found.size(); at++) {
        const int64_t row = at / m % rows, i2 = at / m / rows % (2 * matrices);
        const int64_t i3 = at / m / rows / (2 * matrices);
        const float * source = &x[((i3 * 2 * matrices + i2) * (rows + gap) + row + 1) * k];
        const double exact = exact_product(matrix, i2 / 2 * m + at % m, source);
        error += std::pow(found[at] - exact, 2);
        size += exact * exact;
    }
    expect(
        std::sqrt(error / size) < 8e-3, ggml_type_name(type), "a batch of matrices is wrong", m, k,
        rows);
    ggml_backend_buffer_free(packed);
    ggml_backend_buffer_free(plain);
    ggml_free(context);
    ggml_free(others);
}

void check(ggml_backend_t cpu, ggml_backend_buffer_type_t own, ggml_type type) {
    const bool is_super = ggml_blck_size(type) == 256;
    const std::vector<int64_t> values = is_super ? std::vector<int64_t>{256, 512, 1280}
                                                 : std::vector<int64_t>{32, 96, 256, 544, 896};
    for (int64_t k : values) {
        for (int64_t m : {1, 16, 37, 113}) {
            check_dense(cpu, own, type, m, k);
        }
    }
    check_experts(cpu, own, type, 49, 512);
    check_batch_of_matrices(cpu, own, type, 49, 512);
    check_hostile(cpu, own, type);
}

double time_of(Products & products) {
    const double start = cpu_seconds();
    products.run();
    return cpu_seconds() - start;
}

void time_products(
    ggml_backend_t cpu, ggml_backend_buffer_type_t own, const Matrix & matrix, int layers,
    const std::vector<int64_t> & rows) {
    const char * name = ggml_type_name(matrix.type);
    Products ours(cpu, own, matrix, layers);
    // Stock packs a few types, too.
    ggml_backend_buffer_type_t stock_type = ggml_backend_cpu_buffer_type();
    const ggml_type repacked[] = {GGML_TYPE_Q4_0, GGML_TYPE_Q4_K, GGML_TYPE_IQ4_NL, GGML_TYPE_Q2_K};
    ggml_backend_buffer_type_t extra = extra_buffer_type(cpu, "CPU_REPACK");
    if (extra && matrix.rows % 8 == 0 &&
        std::find(std::begin(repacked), std::end(repacked), matrix.type) != std::end(repacked)) {
        stock_type = extra;
    }
    Products stock(cpu, stock_type, matrix, layers);
    for (int64_t count : rows) {
        const std::vector<float> x = normal(count * matrix.values, 1);
        ours.prepare(x, count);
        stock.prepare(x, count);
        double best_ours = 1e9;
        double best_stock = 1e9;
        double total = 0;
        std::vector<double> ratios;
        for (int each = 0; each < 200 && (each < 5 || total < 1.0); each++) {
            const double a = time_of(stock);
            const double b = time_of(ours);
            best_stock = std::min(best_stock, a);
            best_ours = std::min(best_ours, b);
            ratios.push_back(a / b);
            total += a + b;
        }
        std::sort(ratios.begin(), ratios.end());
        const double operations = 2.0 * matrix.rows * matrix.values * count * layers * 1e-9;
        std::printf(
            "%-7s M %ld K %ld rows %4ld  stock %7.1f  own %7.1f GOPS  %5.1f GB/s  ratio %.2f "
            "(median %.2f)\n",
            name, matrix.rows, matrix.values, count, operations / best_stock,
            operations / best_ours, matrix.file.size() * layers / best_ours * 1e-9,
            best_stock / best_ours, ratios[ratios.size() / 2]);
        std::fflush(stdout);
    }
}

}  // namespace

int main(int count, char ** arguments) {
    if (count < 3) {
        fail("usage: products LIBRARY check [TYPE...] | time TYPE M K LAYERS ROWS...");
    }
    ggml_cpu_init();
    void * library = dlopen(arguments[1], RTLD_NOW | RTLD_GLOBAL);
    if (!library) {
        fail(dlerror());
    }
    if (!reinterpret_cast<bool (*)()>(dlsym(library, "own_register"))()) {
        fail("this CPU has none of the instruction sets");
    }
    ggml_backend_t cpu = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(cpu, 1);
    ggml_backend_buffer_type_t own = extra_buffer_type(cpu, "CPU_OWN");
    if (!own) {
        fail("our buffer type is not there");
    }
    if (std::string(arguments[2]) == "check") {
        std::vector<ggml_type> types;
        for (int each = 3; each < count; each++) {
            types.push_back(type_of(arguments[each]));
        }
        if (types.empty()) {
            types = {GGML_TYPE_F32,  GGML_TYPE_F16,    GGML_TYPE_BF16,   GGML_TYPE_Q8_0,
                     GGML_TYPE_Q4_0, GGML_TYPE_Q4_1,   GGML_TYPE_Q5_0,   GGML_TYPE_Q5_1,
                     GGML_TYPE_Q2_K, GGML_TYPE_Q3_K,   GGML_TYPE_Q4_K,   GGML_TYPE_Q5_K,
                     GGML_TYPE_Q6_K, GGML_TYPE_IQ4_NL, GGML_TYPE_IQ4_XS, GGML_TYPE_MXFP4};
        }
        for (ggml_type type : types) {
            check(cpu, own, type);
        }
        std::printf("%d failures\n", failures);
        return failures != 0;
    }
    if (count < 7) {
        fail("time TYPE M K LAYERS ROWS...");
    }
    const Matrix matrix(type_of(arguments[3]), std::atoi(arguments[4]), std::atoi(arguments[5]));
    std::vector<int64_t> rows;
    for (int each = 7; each < count; each++) {
        rows.push_back(std::atoi(arguments[each]));
    }
    time_products(cpu, own, matrix, std::atoi(arguments[6]), rows);
}
