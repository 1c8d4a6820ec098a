// CUDA kernels on the CPU: g++ compiles the package's .cu files with this header before them to
// shared libraries (see build.py).
//
// There is one system thread. Blocks run one after another, and every CUDA thread of a block is a
// fiber with its own stack. A fiber runs until it has to wait for others, at __syncthreads() or in
// a warp collective (shuffle, ballot, mma); then the next one runs. The order of the threads can be
// chosen: forward, in reverse, or at random from a seed. A kernel that lacks a barrier gives
// another result with one of these orders.
//
// The shim is stricter than a GPU. It requires the following, because anything else is a fault or
// depends on the hardware:
// - shared memory is full of 0xff (as floats: NaN) when a block begins, and has 48 KB at most;
// - a collective names all lanes of its warp, and all of them are in the same collective;
// - at a barrier all threads of the block are at the same line, and none has ended;
// - block sizes are multiples of 32, so that no warp has lanes missing.
#pragma once
#define CUDA_ON_CPU 1
#include <sys/mman.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__ static
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
using std::erf;
using std::exp;
using std::log;
using std::sqrt;
using std::tanh;

struct Triple {
  unsigned x, y, z;
};

namespace shim {

constexpr size_t STACK = 128 * 1024, SHARED = 48 * 1024;
constexpr size_t COLOURS = 64, COLOUR = 9 * 64;  // number of stack offsets, bytes between them
constexpr unsigned MOST_THREADS = 1024;

enum class Wait { nothing, barrier, warp, ended };

struct Fiber {
  void* stack_pointer;
  Wait wait;
  Triple index;
  unsigned number;
  int barrier_line, vote;
  unsigned meetings;  // the number of collectives of its warp so far
};

struct Warp {
  unsigned arrived, ended;
  int kind;                  // the kind of the current collective
  uint64_t deposits[2][32];  // the lanes' values; a lane can be one collective ahead of another
};

struct Machine {
  Triple grid, block, block_index;
  Fiber fibers[MOST_THREADS];
  Warp warps[MOST_THREADS / 32];
  unsigned order[MOST_THREADS];
  Fiber* current;
  unsigned threads;
  int any_vote;  // at the last barrier
  void* scheduler;
  char* stacks;
  void (*body)(void*);
  void* arguments;
  char error[256];
  alignas(128) unsigned char shared[SHARED];
  const void* shared_keys[4];  // the types of structs in this block's shared memory
  size_t shared_offsets[5];    // and their offsets
  int shared_count;
};
inline Machine machine;

inline void fail(const char* what) {
  if (machine.error[0]) return;
  const Triple& b = machine.block_index;
  snprintf(machine.error, sizeof machine.error, "block (%u, %u, %u), thread %u: %s", b.x, b.y, b.z,
           machine.current ? machine.current->number : 0, what);
}

// Saves the callee-saved registers, switches stacks and restores. x86-64, System V ABI.
extern "C" void shim_switch(void** save, void* to) __attribute__((visibility("hidden")));
asm(R"(
.text
.globl shim_switch
.hidden shim_switch
.type shim_switch, @function
shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

inline void yield() { shim_switch(&machine.current->stack_pointer, machine.scheduler); }

inline void fiber_main() {
  machine.body(machine.arguments);
  Fiber& me = *machine.current;
  Warp& warp = machine.warps[me.number / 32];
  if (warp.arrived) fail("this thread ended while its warp waits for it in a collective");
  warp.ended++;
  me.wait = Wait::ended;
  yield();
}

inline void start(Fiber& fiber, unsigned number) {
  const Triple& size = machine.block;
  fiber = {};
  fiber.number = number;
  fiber.index = {number % size.x, number / size.x % size.y, number / size.x / size.y};
  // Stacks start at different offsets, to avoid conflicts in the processor's cache.
  char* top = machine.stacks + (number + 1) * STACK - number % COLOURS * COLOUR;
  void** stack = reinterpret_cast<void**>(top);
  *--stack = nullptr;  // where fiber_main would return to; keeps the stack aligned as by a call
  *--stack = reinterpret_cast<void*>(&fiber_main);
  for (int i = 0; i < 6; i++) *--stack = nullptr;
  fiber.stack_pointer = stack;
}

// A barrier of the block. Returns whether one of the threads had a vote that is not 0.
inline bool sync_threads(int line, int vote = 0) {
  machine.current->wait = Wait::barrier;
  machine.current->barrier_line = line;
  machine.current->vote = vote;
  yield();
  return machine.any_vote;
}

// A collective of the warp: stores `deposit`, returns the deposits of all lanes.
inline const uint64_t* meet(unsigned mask, int kind, uint64_t deposit) {
  Fiber& me = *machine.current;
  Warp& warp = machine.warps[me.number / 32];
  if (mask != 0xffffffffu) fail("a warp collective must name all lanes");
  if (warp.ended) fail("a warp collective after one of the lanes has ended");
  if (warp.arrived && warp.kind != kind) fail("the lanes of a warp are in different collectives");
  if (machine.error[0]) yield();
  warp.kind = kind;
  uint64_t* deposits = warp.deposits[me.meetings++ % 2];
  deposits[me.number % 32] = deposit;
  if (++warp.arrived < 32) {
    me.wait = Wait::warp;
    yield();
  } else {
    warp.arrived = 0;
    Fiber* first = &machine.fibers[me.number / 32 * 32];
    for (int lane = 0; lane < 32; lane++) first[lane].wait = Wait::nothing;
  }
  return deposits;
}

template <class T> uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T> T from_bits(uint64_t bits) {
  T value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

inline unsigned lane() { return machine.current->number % 32; }

template <class Struct> struct Tag {
  static inline char key;
};

template <class Struct> Struct& block_shared() {
  int i = 0;
  while (i < machine.shared_count && machine.shared_keys[i] != &Tag<Struct>::key) i++;
  if (i == machine.shared_count) {
    const size_t end = machine.shared_offsets[i] + (sizeof(Struct) + 15) / 16 * 16;
    if (i == 4 || end > SHARED) {
      fail("more than 48 KB of shared memory");
      yield();
    }
    machine.shared_keys[i] = &Tag<Struct>::key;
    machine.shared_offsets[++machine.shared_count] = end;
  }
  return *reinterpret_cast<Struct*>(machine.shared + machine.shared_offsets[i]);
}

struct Random {  // xorshift64
  uint64_t state;
  unsigned below(unsigned n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return unsigned(state % n);
  }
};

// All threads are waiting. Lets them pass if all are at the same barrier.
inline bool pass_barrier() {
  unsigned waiting = 0;
  int line = -1;
  for (unsigned i = 0; i < machine.threads; i++) {
    Fiber& fiber = machine.fibers[i];
    if (fiber.wait == Wait::ended) continue;
    machine.current = &fiber;
    if (fiber.wait == Wait::warp) {
      fail("deadlock: it waits in a warp collective that others of its warp do not reach");
      return false;
    }
    if (line >= 0 && line != fiber.barrier_line) {
      fail("it is at another __syncthreads() than the threads before it");
      return false;
    }
    line = fiber.barrier_line;
    waiting++;
  }
  if (waiting != machine.threads) {
    fail("it waits at __syncthreads() for threads that have ended");
    return false;
  }
  machine.any_vote = 0;
  for (unsigned i = 0; i < machine.threads; i++) {
    machine.fibers[i].wait = Wait::nothing;
    machine.any_vote |= machine.fibers[i].vote != 0;
  }
  return true;
}

inline void shuffle(unsigned* numbers, unsigned n, Random& random) {
  for (unsigned i = n; i > 1; i--) {
    const unsigned j = random.below(i), swapped = numbers[i - 1];
    numbers[i - 1] = numbers[j];
    numbers[j] = swapped;
  }
}

// Runs each of these threads until it has to wait, unless it is waiting. Returns how many ran.
inline unsigned run_ready(const unsigned* numbers, unsigned n, unsigned& ended) {
  unsigned ran = 0;
  for (unsigned i = 0; i < n && !machine.error[0]; i++) {
    Fiber& fiber = machine.fibers[numbers[i]];
    if (fiber.wait != Wait::nothing) continue;
    ran++;
    machine.current = &fiber;
    shim_switch(&machine.scheduler, fiber.stack_pointer);
    ended += fiber.wait == Wait::ended;
  }
  return ran;
}

// With forward, reverse and even seeds all threads run in turn, so that warps advance together.
// With odd seeds a warp runs up to its next barrier before another warp runs.
inline bool run_block(int schedule, Random& random) {
  const unsigned n = machine.threads;
  for (unsigned i = 0; i < n; i++) {
    start(machine.fibers[i], i);
    machine.order[i] = schedule == 1 ? n - 1 - i : i;
  }
  for (unsigned i = 0; i < n / 32; i++) machine.warps[i].arrived = machine.warps[i].ended = 0;
  memset(machine.shared, 0xff, SHARED);
  machine.shared_count = 0;
  machine.shared_offsets[0] = 0;
  unsigned ended = 0;
  while (ended < n) {
    unsigned ran = 0;
    if (schedule > 2 && schedule % 2) {
      unsigned warps[MOST_THREADS / 32];
      for (unsigned i = 0; i < n / 32; i++) warps[i] = i;
      shuffle(warps, n / 32, random);
      for (unsigned i = 0; i < n / 32; i++) {
        unsigned* lanes = machine.order + warps[i] * 32;
        unsigned now;
        do {
          shuffle(lanes, 32, random);
          ran += now = run_ready(lanes, 32, ended);
        } while (now);
      }
    } else {
      if (schedule >= 2) shuffle(machine.order, n, random);
      ran = run_ready(machine.order, n, ended);
    }
    if (machine.error[0] || (!ran && !pass_barrier())) return false;
  }
  return true;
}

template <class... Args, size_t... I>
void call(void (*kernel)(Args...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_cv_t<Args>*>(arguments[I])...);
}

// Runs a kernel on a grid, or one block of it if `only` is not null. `schedule`: 0 is forward, 1
// reverse, 2 and more a seed. Returns whether it ran to its end; if not, `error` (256 bytes) has
// the reason.
template <class... Args>
bool launch(void (*kernel)(Args...), const unsigned* grid, const unsigned* block, void** arguments,
            int schedule, char* error, const unsigned* only) {
  struct Call {
    void (*kernel)(Args...);
    void** arguments;
  } the_call = {kernel, arguments};
  machine.body = [](void* pointer) {
    Call* c = static_cast<Call*>(pointer);
    call(c->kernel, c->arguments, std::index_sequence_for<Args...>{});
  };
  machine.arguments = &the_call;
  machine.grid = {grid[0], grid[1], grid[2]};
  machine.block = {block[0], block[1], block[2]};
  machine.threads = block[0] * block[1] * block[2];
  machine.error[0] = 0;
  machine.current = nullptr;
  if (!machine.stacks)  // pages use memory only when they are touched
    machine.stacks = static_cast<char*>(mmap(nullptr, STACK * MOST_THREADS, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  Random random{0x9E3779B97F4A7C15ull * unsigned(schedule + 1) | 1};
  const size_t blocks = only ? 1 : size_t(grid[0]) * grid[1] * grid[2];
  const size_t offset = schedule >= 2 ? random.below(unsigned(blocks)) : 0;
  for (size_t i = 0; i < blocks; i++) {
    // Blocks run in order, in reverse, or in order from a random one on.
    const size_t b = schedule == 1 ? blocks - 1 - i : (i + offset) % blocks;
    machine.block_index = {unsigned(b % grid[0]), unsigned(b / grid[0] % grid[1]),
                           unsigned(b / grid[0] / grid[1])};
    if (only) machine.block_index = {only[0], only[1], only[2]};
    if (!run_block(schedule, random)) break;
  }
  memcpy(error, machine.error, sizeof machine.error);
  return !machine.error[0];
}

// A kernel's parameters as text: "*f4" is a pointer to float, "i4" an int. The caller compares its
// arguments with this, because a GPU would read their bits without a check.
template <class T> constexpr const char* code_of() {
  using U = std::remove_cv_t<T>;
  if constexpr (std::is_pointer_v<U>) {
    using P = std::remove_cv_t<std::remove_pointer_t<U>>;
    if constexpr (std::is_same_v<P, bool>) return "*b1";
    if constexpr (std::is_same_v<P, float>) return "*f4";
    if constexpr (std::is_same_v<P, double>) return "*f8";
    if constexpr (std::is_same_v<P, unsigned short>) return "*u2";
    if constexpr (std::is_integral_v<P> && sizeof(P) == 4) return std::is_signed_v<P> ? "*i4" : "*u4";
    if constexpr (std::is_integral_v<P> && sizeof(P) == 8) return std::is_signed_v<P> ? "*i8" : "*u8";
  } else if constexpr (std::is_floating_point_v<U>) {
    return sizeof(U) == 4 ? "f4" : "f8";
  } else if constexpr (std::is_integral_v<U> && sizeof(U) == 4) {
    return std::is_signed_v<U> ? "i4" : "u4";
  } else if constexpr (std::is_integral_v<U> && sizeof(U) == 8) {
    return std::is_signed_v<U> ? "i8" : "u8";
  }
  return "?";
}

template <class... Args> void describe(void (*)(Args...), char* text) {
  text[0] = 0;
  ((strcat(text, code_of<Args>()), strcat(text, " ")), ...);
}

}  // namespace shim

#define SHIM_EXPORT(symbol, ...)                                                                \
  extern "C" bool symbol(const unsigned* grid, const unsigned* block, void** arguments,         \
                         int schedule, char* error, const unsigned* only) {                     \
    return shim::launch(&__VA_ARGS__, grid, block, arguments, schedule, error, only);           \
  }                                                                                             \
  extern "C" void symbol##_parameters(char* text) { shim::describe(&__VA_ARGS__, text); }

// CUDA's own names

#define threadIdx (shim::machine.current->index)
#define blockIdx (shim::machine.block_index)
#define blockDim (shim::machine.block)
#define gridDim (shim::machine.grid)
#define __syncthreads() shim::sync_threads(__LINE__)
#define __syncthreads_or(vote) shim::sync_threads(__LINE__, vote)
using shim::block_shared;

template <class T> T __shfl_xor_sync(unsigned mask, T value, int distance) {
  return shim::from_bits<T>(shim::meet(mask, 1, shim::to_bits(value))[shim::lane() ^ distance]);
}

template <class T> T __shfl_sync(unsigned mask, T value, int source) {
  return shim::from_bits<T>(shim::meet(mask, 2, shim::to_bits(value))[source % 32]);
}

inline unsigned __ballot_sync(unsigned mask, int vote) {
  const uint64_t* votes = shim::meet(mask, 3, vote != 0);
  unsigned result = 0;
  for (int lane = 0; lane < 32; lane++) result |= unsigned(votes[lane]) << lane;
  return result;
}

inline void __syncwarp(unsigned mask = 0xffffffffu) { shim::meet(mask, 4, 0); }

// Fibers switch only where they wait, so an ordinary addition is atomic.
template <class T> T atomicAdd(T* place, T value) {
  const T old = *place;
  *place = old + value;
  return old;
}

inline void __threadfence() {}
template <class T> T __ldcg(const T* place) { return *place; }

inline unsigned __float_as_uint(float x) { return shim::from_bits<unsigned>(shim::to_bits(x)); }
inline float __uint_as_float(unsigned bits) { return shim::from_bits<float>(bits); }

inline int __ffs(unsigned bits) { return __builtin_ffs(int(bits)); }

// Rounds to 10 bits of mantissa, half to even, as cvt.rn.tf32 does on an H100.
inline unsigned to_tf32(float x) {
  unsigned bits;
  memcpy(&bits, &x, 4);
  if (x != x) return 0x7fffe000u;
  return (bits + 0xfffu + (bits >> 13 & 1)) & 0xffffe000u;
}

// Rounds to the upper half of a float, half to even, as cvt.rn.bf16 does.
inline unsigned to_bf16(float x) {
  unsigned bits;
  memcpy(&bits, &x, 4);
  if (x != x) return 0x7fffu;
  return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}

inline unsigned to_bf16_pair(float low, float high) { return to_bf16(low) | to_bf16(high) << 16; }

inline float power_of_two(float x) { return std::exp2(x); }

// mma.sync.m16n8k8 on TF32 and m16n8k16 on pairs of bfloat16, in the layout of the PTX manual: with
// g = lane/4 and t = lane%4, a lane holds the words a (g, t), (g+8, t), (g, t+4), (g+8, t+4), b (t,
// g), (t+4, g), and the numbers d (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1). `number` extracts
// part 0, 1, ... of a word. Products of two such numbers are exact in float32.
template <int PARTS, class Numbers>
void mma_words(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], Numbers number) {
  struct Operands {
    const unsigned *a, *b;
  } mine = {a, b};
  const uint64_t* all = shim::meet(0xffffffffu, 5, shim::to_bits<const void*>(&mine));
  auto operands = [&](int lane) { return shim::from_bits<const Operands*>(all[lane]); };
  const int group = shim::lane() / 4, within = shim::lane() % 4;
  float sums[4];
  for (int e = 0; e < 4; e++) {
    const int row = group + e / 2 * 8, column = 2 * within + e % 2;
    sums[e] = d[e];
    for (int k = 0; k < 8; k++) {
      const unsigned left = operands(row % 8 * 4 + k % 4)->a[row / 8 + k / 4 * 2];
      const unsigned right = operands(column * 4 + k % 4)->b[k / 4];
      for (int part = 0; part < PARTS; part++) sums[e] += number(left, part) * number(right, part);
    }
  }
  shim::meet(0xffffffffu, 6, 0);  // operands lie on the lanes' stacks: wait until all are read
  for (int e = 0; e < 4; e++) d[e] = sums[e];
}

inline void load_matrices(unsigned (&words)[4], const unsigned* row) {
  const int lane = shim::lane();
  for (int m = 0; m < 4; m++)
    words[m] = __shfl_sync(0xffffffffu, row, 8 * m + lane / 4)[lane % 4];
}

inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_words<1>(d, a, b, [](unsigned bits, int) { return shim::from_bits<float>(bits & 0xffffe000u); });
}

inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_words<2>(d, a, b, [](unsigned bits, int part) {
    return shim::from_bits<float>(part ? bits & 0xffff0000u : bits << 16);
  });
}
