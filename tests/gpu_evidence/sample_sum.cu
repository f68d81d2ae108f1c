// Sum of squares of a block in a fixed order: proves that the PTX of nvcc runs in the emulator.
extern "C" __global__ void sample_sum(const double* x, double* out, int n) {
  __shared__ double partial[128];
  double sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[i] * x[i];
  partial[threadIdx.x] = sum;
  __syncthreads();
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) out[blockIdx.x] = partial[0];
}
