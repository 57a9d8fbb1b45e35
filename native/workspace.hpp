// Scratch memory that outlives the call: a fresh page costs a fault of half a microsecond per 4 KiB, which for
// the megabytes of one window is as long as reading them ten times.
#pragma once

#include <cstddef>

namespace elman {

// At least `bytes`, aligned to 64; the contents are left over from the last user. Any thread may hold
// several. Throws std::bad_alloc.
class Workspace {
  public:
    explicit Workspace(size_t bytes);
    ~Workspace();
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;

    template <class T> T* as() const { return static_cast<T*>(data_); }

  private:
    void* data_;
    size_t bytes_;
};

// Gives what nobody holds back to the system; returns the number of bytes.
size_t release_workspaces();

}  // namespace elman
