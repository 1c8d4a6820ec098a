#pragma once

// Tensor cores. Operands are TF32 (floats whose last 13 bits are rounded away) or bfloat16 (the
// upper half of a float, rounded; two in a word); sums are float32. This is PTX for compute
// capability 8.0 and above. The test shim has its own functions with these names.
#ifndef CUDA_ON_CPU
// Rounds to the nearest TF32. Compute capability 9 has an instruction that rounds ties to even.
// Compute capability 8 rounds ties away from zero.
__device__ __forceinline__ unsigned to_tf32(float x) {
  unsigned result = 0;
#if __CUDA_ARCH__ >= 900
  asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(result) : "f"(x));
#elif __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(x));
#endif
  return result;
}

__device__ __forceinline__ unsigned to_bf16_pair(float low, float high) {
  unsigned result = 0;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
#endif
  return result;
}

// Loads four matrices of 8 rows of four words from shared memory. Lane 8·m + r passes the address
// of row r of matrix m. Lane 4·r + c gets word c of row r of each matrix.
__device__ __forceinline__ void load_matrices(unsigned (&words)[4], const unsigned* row) {
#if __CUDA_ARCH__ >= 750
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
#endif
}

// 2^x, exact to 22 bits; results below the normal numbers become 0.
__device__ __forceinline__ float power_of_two(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// d (16 x 8) += a (16 x 8 words)·b (8 words x 8). The matrices are spread over a warp as in the PTX
// manual. With g = lane/4 and t = lane%4, a lane's a has the words (g, t), (g+8, t), (g, t+4),
// (g+8, t+4); its b has (t, g), (t+4, g); its d has (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1).
#define MMA(shape, numbers)                                                                      \
  asm volatile("mma.sync.aligned." shape ".row.col.f32." numbers "." numbers ".f32 "             \
               "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                           \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                  \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4],
                                         const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  MMA("m16n8k8", "tf32");
#endif
}

__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4],
                                         const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  MMA("m16n8k16", "bf16");
#endif
}
#endif

// How operands are stored in the 32-bit words of shared memory and of fragments: PACK in each word.
struct Tf32 {
  static constexpr int PACK = 1;
  static __device__ __forceinline__ unsigned word(const float* x) { return to_tf32(x[0]); }
  static __device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2]) {
    mma_tf32(d, a, b);
  }
};

struct Bf16 {
  static constexpr int PACK = 2;
  static __device__ __forceinline__ unsigned word(const float* x) {
    return to_bf16_pair(x[0], x[1]);
  }
  static __device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2]) {
    mma_bf16(d, a, b);
  }
};
