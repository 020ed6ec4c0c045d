// The self-check of the kernels as a program of its own, so that it can be compiled with sanitizers:
// check_kernels INSTRUCTION_SET. Ends with 1 if something is wrong, and then says what.
#include <cstdio>

extern "C" {
bool own_select_isa(const char * name);
bool own_register();
const char * own_self_check(bool is_full);
}

int main(int, char ** arguments) {
    if (!own_select_isa(arguments[1]) || !own_register()) {
        std::printf("this processor lacks %s\n", arguments[1]);
        return 2;
    }
    const char * found = own_self_check(true);
    std::printf("%s\n", found);
    return *found == '\n' ? 0 : 1;
}
