// Which ops of a graph are computed here, and which are left to stock, while somebody wants to
// know.
#pragma once

#include "ggml.h"

#include <cstdint>

namespace own {

struct Usage {
    int64_t products;    // computed here
    int64_t attentions;  // computed here
    // Names of the ops that stock computes and whose result may depend on other rows of the batch,
    // on the number of threads, or on how a prompt was cut; separated by blanks.
    const char * variant;
};

// Forget what was recorded, and record from now on.
void begin_recording();

// Stop recording. The text is valid until the next call.
Usage end_recording();

// Called for each op when a graph is planned; cheap unless something records.
void record_own(const ggml_tensor * op);

// Called, maybe several times, for each op that stock computes.
void record_stock(const ggml_tensor * op);

}  // namespace own
