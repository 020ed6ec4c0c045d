// Attention is compared with sums in float64 over the same keys and values.
//
// Values are about normal, so that an output is off by as much as BOUND says: where keys are F16 or
// wider, computing in float32 leaves the rounding of probabilities; where they are 8-bit or
// narrower, the query may be rounded to 8 bits, too.
#include "self_check.h"

#include "attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace own {

namespace {

constexpr double BOUND = 3e-3;
constexpr double ROUNDED_BOUND = 3e-2;
constexpr int THREADS = 3;

struct Shape {
    ggml_type type;
    int64_t key_size, value_size;
    int64_t heads, kv_heads;
    int64_t streams = 1;
    float softcap = 0;
    float max_bias = 0;  // of ALiBi
    bool has_sinks = false;
    int64_t window = 0;  // keys that a row sees; 0: all before it
};

std::string describe(const Shape & shape) {
    return format(
        "attention, %s, head sizes %d and %d, %d of %d heads%s%s%s%s%s", ggml_type_name(shape.type),
        static_cast<int>(shape.key_size), static_cast<int>(shape.value_size),
        static_cast<int>(shape.kv_heads), static_cast<int>(shape.heads),
        shape.softcap > 0 ? ", soft-cap" : "", shape.max_bias > 0 ? ", ALiBi" : "",
        shape.has_sinks ? ", sinks" : "", shape.window ? ", window" : "",
        shape.streams > 1 ? ", streams" : "");
}

// Rows of numbers in a type of the cache, and what they are after that.
struct Stored {
    Stored(ggml_type type, int64_t size, int64_t rows, Random & random) : type(type), size(size) {
        values.resize(static_cast<size_t>(size * rows));
        std::generate(values.begin(), values.end(), [&] { return random.normal(); });
        data.resize(ggml_row_size(type, size) * static_cast<size_t>(rows));
        ggml_quantize_chunk(type, values.data(), data.data(), 0, rows, size, nullptr);
        if (type != GGML_TYPE_F32) {
            ggml_get_type_traits(type)->to_float(data.data(), values.data(), size * rows);
        }
    }

    ggml_type type;
    int64_t size;
    std::vector<float> values;
    std::vector<char> data;
};

// A cache with the keys and values of `positions` tokens for each stream, and rows that see them.
struct Case {
    Case(const Shape & shape, int64_t positions, int64_t rows, Random & random)
        : shape(shape),
          positions(positions),
          rows(rows),
          keys(shape.type, shape.key_size, positions * shape.kv_heads * shape.streams, random),
          values(shape.type, shape.value_size, positions * shape.kv_heads * shape.streams, random),
          queries(static_cast<size_t>(shape.key_size * shape.heads * rows * shape.streams)),
          sinks(static_cast<size_t>(shape.heads)) {
        std::generate(queries.begin(), queries.end(), [&] { return 2 * random.normal(); });
        std::generate(sinks.begin(), sinks.end(), [&] { return 2 * random.normal(); });
    }

    // The rows are the last positions.
    bool sees(int64_t row, int64_t position) const {
        const int64_t own = positions - rows + row;
        return position <= own && (!shape.window || position > own - shape.window);
    }

    float scale() const { return 1 / std::sqrt(static_cast<float>(shape.key_size)); }

    Shape shape;
    int64_t positions, rows;
    Stored keys, values;
    std::vector<float> queries, sinks;
};

// Where the tokens of a case are in the cache: position p in cell `first` + p * `step`.
struct Placement {
    int64_t first = 0, step = 1, cells;
};

ggml_tensor * store(
    Tensors & tensors, const Stored & stored, const Case & test, const Placement & placement,
    std::vector<std::pair<ggml_tensor *, std::vector<char>>> & contents) {
    const int64_t heads = test.shape.kv_heads, streams = test.shape.streams;
    ggml_tensor * tensor = ggml_new_tensor_4d(
        tensors.context.get(), stored.type, stored.size, heads, placement.cells, streams);
    const size_t cell = ggml_row_size(stored.type, stored.size) * static_cast<size_t>(heads);
    std::vector<char> data(ggml_nbytes(tensor), 0x35);  // what nobody sees is not zero
    for (int64_t stream = 0; stream < streams; stream++) {
        for (int64_t position = 0; position < test.positions; position++) {
            const int64_t at =
                stream * placement.cells + placement.first + position * placement.step;
            std::memcpy(
                data.data() + static_cast<size_t>(at) * cell,
                stored.data.data() + static_cast<size_t>(stream * test.positions + position) * cell,
                cell);
        }
    }
    contents.emplace_back(tensor, std::move(data));
    return ggml_permute(tensors.context.get(), tensor, 0, 2, 1, 3);
}

template <class T> std::vector<char> bytes_of(const std::vector<T> & values) {
    std::vector<char> bytes(values.size() * sizeof(T));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
}

// Only the rows from `first` on, `count` of them: for each stream, row, head and value.
// Empty: stock would compute it.
std::vector<float> attend(
    const Case & test, const Placement & placement, int threads, int64_t first = 0,
    int64_t count = 0) {
    const Shape & shape = test.shape;
    count = count ? count : test.rows;
    Tensors tensors;
    ggml_context * context = tensors.context.get();
    std::vector<std::pair<ggml_tensor *, std::vector<char>>> contents;
    ggml_tensor * keys = store(tensors, test.keys, test, placement, contents);
    ggml_tensor * values = store(tensors, test.values, test, placement, contents);

    ggml_tensor * queries = ggml_new_tensor_4d(
        context, GGML_TYPE_F32, shape.key_size, shape.heads, count, shape.streams);
    const int64_t row_size = shape.key_size * shape.heads;
    std::vector<float> rows;
    for (int64_t stream = 0; stream < shape.streams; stream++) {
        const auto begin = test.queries.begin() + (stream * test.rows + first) * row_size;
        rows.insert(rows.end(), begin, begin + count * row_size);
    }
    contents.emplace_back(queries, bytes_of(rows));

    ggml_tensor * mask =
        ggml_new_tensor_4d(context, GGML_TYPE_F16, placement.cells, count, 1, shape.streams);
    std::vector<ggml_fp16_t> seen(
        static_cast<size_t>(ggml_nelements(mask)), ggml_fp32_to_fp16(-INFINITY));
    for (int64_t stream = 0; stream < shape.streams; stream++) {
        for (int64_t row = 0; row < count; row++) {
            for (int64_t position = 0; position < test.positions; position++) {
                const int64_t cell = placement.first + position * placement.step;
                if (test.sees(first + row, position)) {
                    const float bias =
                        shape.max_bias > 0
                            ? static_cast<float>(
                                  position - (test.positions - test.rows + first + row))
                            : 0.f;
                    seen[static_cast<size_t>((stream * count + row) * placement.cells + cell)] =
                        ggml_fp32_to_fp16(bias);
                }
            }
        }
    }
    contents.emplace_back(mask, bytes_of(seen));

    ggml_tensor * result = ggml_flash_attn_ext(
        context, ggml_permute(context, queries, 0, 2, 1, 3), keys, values, mask, test.scale(),
        shape.max_bias, shape.softcap);
    ggml_prec_set_acc(result, GGML_PREC_F32);
    if (shape.has_sinks) {
        ggml_tensor * sinks = ggml_new_tensor_1d(context, GGML_TYPE_F32, shape.heads);
        ggml_flash_attn_ext_add_sinks(result, sinks);
        contents.emplace_back(sinks, bytes_of(test.sinks));
    }
    tensors.allocate(ggml_backend_cpu_buffer_type());
    for (const auto & [tensor, data] : contents) {
        ggml_backend_tensor_set(tensor, data.data(), 0, data.size());
    }
    return supports_attention(result) ? compute(result, tensors, threads) : std::vector<float>();
}

double slope_of(const Shape & shape, int64_t head) {
    if (shape.max_bias <= 0) {
        return 1;
    }
    const auto powers = static_cast<int64_t>(std::exp2(std::floor(std::log2(shape.heads))));
    return head < powers
               ? std::exp2(
                     -shape.max_bias / static_cast<double>(powers) * static_cast<double>(head + 1))
               : std::exp2(
                     -shape.max_bias / 2 / static_cast<double>(powers) *
                     static_cast<double>(2 * (head - powers) + 1));
}

// The output of one head of a row.
std::vector<double> expect(const Case & test, int64_t stream, int64_t row, int64_t head) {
    const Shape & shape = test.shape;
    const int64_t kv_head = head / (shape.heads / shape.kv_heads);
    const float * query =
        test.queries.data() + ((stream * test.rows + row) * shape.heads + head) * shape.key_size;
    const int64_t own = test.positions - test.rows + row;
    std::vector<double> scores;
    std::vector<const float *> values;
    for (int64_t position = 0; position < test.positions; position++) {
        if (!test.sees(row, position)) {
            continue;
        }
        const int64_t at = (stream * test.positions + position) * shape.kv_heads + kv_head;
        const float * key = test.keys.values.data() + at * shape.key_size;
        double score = 0;
        for (int64_t each = 0; each < shape.key_size; each++) {
            score += static_cast<double>(query[each]) * key[each];
        }
        score *= test.scale();
        if (shape.softcap > 0) {
            score = shape.softcap * std::tanh(score / shape.softcap);
        }
        if (shape.max_bias > 0) {
            score += slope_of(shape, head) * static_cast<double>(position - own);
        }
        scores.push_back(score);
        values.push_back(test.values.values.data() + at * shape.value_size);
    }
    const double sink = test.sinks[static_cast<size_t>(head)];
    double highest = *std::max_element(scores.begin(), scores.end());
    highest = shape.has_sinks ? std::max(highest, sink) : highest;
    double total = shape.has_sinks ? std::exp(sink - highest) : 0;
    std::vector<double> sums(static_cast<size_t>(shape.value_size));
    for (size_t each = 0; each < scores.size(); each++) {
        const double weight = std::exp(scores[each] - highest);
        total += weight;
        for (size_t at = 0; at < sums.size(); at++) {
            sums[at] += weight * values[each][at];
        }
    }
    for (double & sum : sums) {
        sum /= total;
    }
    return sums;
}

std::string compare(const Case & test, const std::vector<float> & found) {
    const Shape & shape = test.shape;
    const bool is_wide = ggml_blck_size(shape.type) == 1;
    const double bound = is_wide ? BOUND : ROUNDED_BOUND;
    const float * output = found.data();
    for (int64_t stream = 0; stream < shape.streams; stream++) {
        for (int64_t row = 0; row < test.rows; row++) {
            for (int64_t head = 0; head < shape.heads; head++) {
                for (double expected : expect(test, stream, row, head)) {
                    const double error = std::abs(*output++ - expected);
                    if (!(error <= bound)) {
                        return format(
                            "row %d, head %d is off by %.2g (bound %.2g)", static_cast<int>(row),
                            static_cast<int>(head), error, bound);
                    }
                }
            }
        }
    }
    return "";
}

// Whether the rows of `part`, those from `first` on, are the same bits in `whole`.
bool is_part(
    const Case & test, const std::vector<float> & whole, const std::vector<float> & part,
    int64_t first, int64_t count) {
    const int64_t row_size = test.shape.heads * test.shape.value_size;
    for (int64_t stream = 0; stream < test.shape.streams; stream++) {
        const float * one = whole.data() + (stream * test.rows + first) * row_size;
        const float * other = part.data() + stream * count * row_size;
        if (std::memcmp(one, other, static_cast<size_t>(count * row_size) * sizeof(float)) != 0) {
            return false;
        }
    }
    return true;
}

std::string check_case(const Case & test) {
    const Placement together{0, 1, test.positions};
    const std::vector<float> found = attend(test, together, 1);
    if (found.empty()) {
        return "";
    }
    std::string wrong = compare(test, found);
    if (!wrong.empty()) {
        return wrong;
    }
    if (!is_part(test, found, attend(test, together, THREADS), 0, test.rows)) {
        return "depends on the number of threads";
    }
    const Placement scattered{5, 3, 3 * test.positions + 40};
    if (!is_part(test, found, attend(test, scattered, 1), 0, test.rows)) {
        return "depends on the cells";
    }
    for (int64_t row = 0; row < test.rows; row += std::max<int64_t>(1, test.rows / 3)) {
        if (!is_part(test, found, attend(test, together, 1, row, 1), row, 1)) {
            return format("row %d depends on the others", static_cast<int>(row));
        }
    }
    return "";
}

std::string check_shape(const Shape & shape, Depth depth) {
    Random random(static_cast<uint64_t>(shape.key_size * 100 + shape.heads));
    struct Size {
        int64_t positions, rows;
    };
    const std::vector<Size> sizes =
        depth == Depth::full
            ? std::vector<Size>{{1, 1}, {300, 1}, {17, 3}, {70, 8}, {100, 33}, {300, 100}}
            : std::vector<Size>{{40, 1}, {70, 3}, {130, 66}};
    for (const Size & size : sizes) {
        const std::string wrong = check_case(Case(shape, size.positions, size.rows, random));
        if (!wrong.empty()) {
            return describe(shape) +
                   format(
                       ", %d keys, %d rows: ", static_cast<int>(size.positions),
                       static_cast<int>(size.rows)) +
                   wrong;
        }
    }
    return "";
}

std::vector<Shape> make_shapes(ggml_type type, Depth depth) {
    std::vector<Shape> shapes = {{type, 64, 64, 4, 2}, {type, 128, 128, 2, 1, 2}};
    Shape all{type, 64, 64, 6, 3};
    all.softcap = 5;
    all.max_bias = 8;
    all.has_sinks = true;
    all.window = 20;
    shapes.push_back(all);
    if (depth == Depth::full) {
        for (int64_t size : {32, 80, 96, 192, 256}) {
            shapes.push_back({type, size, size, 4, 4});
        }
        shapes.push_back({type, 192, 128, 8, 1});
        shapes.push_back({type, 128, 64, 12, 4});
        Shape each{type, 64, 64, 8, 2};
        (shapes.emplace_back(each)).softcap = 30;
        (shapes.emplace_back(each)).max_bias = 8;
        (shapes.emplace_back(each)).has_sinks = true;
        (shapes.emplace_back(each)).window = 7;
        (shapes.emplace_back(each)).streams = 3;
    }
    return shapes;
}

// Some models choose keys in each layer: their masks come one after the other in the same memory.
std::string check_changed_mask(Random & random) {
    constexpr int64_t size = 64, heads = 2, cells = 40, rows = 3;
    Tensors tensors;
    ggml_context * context = tensors.context.get();
    ggml_tensor * queries = ggml_new_tensor_3d(context, GGML_TYPE_F32, size, rows, heads);
    ggml_tensor * keys = ggml_new_tensor_3d(context, GGML_TYPE_F16, size, cells, heads);
    ggml_tensor * nothing = ggml_new_tensor_2d(context, GGML_TYPE_F16, cells, rows);
    ggml_tensor * everything = ggml_new_tensor_2d(context, GGML_TYPE_F16, cells, rows);
    const auto attend = [&](ggml_tensor * mask) {
        return ggml_flash_attn_ext(context, queries, keys, keys, mask, 0.125f, 0, 0);
    };
    ggml_tensor * hidden = attend(nothing);
    ggml_tensor * seen = attend(ggml_cpy(context, everything, nothing));
    ggml_tensor * result = ggml_sub(context, ggml_add(context, hidden, seen), attend(everything));
    tensors.allocate(ggml_backend_cpu_buffer_type());
    std::vector<float> numbers(static_cast<size_t>(size * rows * heads));
    std::generate(numbers.begin(), numbers.end(), [&] { return random.normal(); });
    ggml_backend_tensor_set(queries, numbers.data(), 0, ggml_nbytes(queries));
    const Stored stored(GGML_TYPE_F16, size, cells * heads, random);
    ggml_backend_tensor_set(keys, stored.data.data(), 0, stored.data.size());
    const auto fill = [](ggml_tensor * mask, float value) {
        const std::vector<ggml_fp16_t> values(
            static_cast<size_t>(ggml_nelements(mask)), ggml_fp32_to_fp16(value));
        ggml_backend_tensor_set(mask, values.data(), 0, ggml_nbytes(mask));
    };
    fill(nothing, -INFINITY);
    fill(everything, 0);
    if (!supports_attention(hidden)) {
        return "";
    }
    const std::vector<float> rest = compute(result, tensors, 1);
    const bool is_same = std::all_of(rest.begin(), rest.end(), [](float x) { return x == 0; });
    return is_same ? "" : "attention does not see that a mask has changed";
}

}  // namespace

std::string check_attention(Depth depth) {
    const std::vector<ggml_type> types =
        depth == Depth::full
            ? std::vector<ggml_type>{GGML_TYPE_F16,  GGML_TYPE_Q8_0, GGML_TYPE_F32,
                                     GGML_TYPE_BF16, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1,
                                     GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_IQ4_NL}
            : std::vector<ggml_type>{GGML_TYPE_F16, GGML_TYPE_Q8_0};
    for (ggml_type type : types) {
        for (const Shape & shape : make_shapes(type, depth)) {
            const int64_t block = ggml_blck_size(type);
            if (shape.key_size % block || shape.value_size % block) {
                continue;
            }
            std::string wrong = check_shape(shape, depth);
            if (!wrong.empty()) {
                return wrong;
            }
        }
    }
    Random random(1);
    return check_changed_mask(random);
}

}  // namespace own
