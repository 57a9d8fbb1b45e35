// Runs the kernels without Python and on threads of its own, for the address, undefined-behaviour and thread
// sanitizers:  cmake -DELMAN_DRIVER=ON -DELMAN_MODULE=OFF -DCMAKE_CXX_FLAGS=-fsanitize=address,undefined
#include <cstdio>

#include "threads.hpp"

int drive_output();  // the number of wrong results
int drive_recurrence();

int main() {
    elman::use_own_pool(true);
    const int wrong = drive_output() + drive_recurrence();
    std::printf("%d wrong results\n", wrong);
    return wrong != 0;
}
