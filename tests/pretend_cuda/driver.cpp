// What PyTorch's backward pass asks of a CUDA driver, for a device that is only pretended.
//
// As a library that is loaded before PyTorch's, it says how many devices there are. As libcuda.so.1, it is a driver
// on which no context exists and every call fails with "invalid device".
static int devices = 0;
static const int INVALID_DEVICE = 101;

extern "C" void pretend_devices(int n) { devices = n; }

namespace c10::cuda {
bool hasPrimaryContext(signed char) { return false; }
signed char device_count() noexcept { return static_cast<signed char>(devices); }
}  // namespace c10::cuda

extern "C" int cuDevicePrimaryCtxGetState(int, unsigned *flags, int *active) {
  if (flags) *flags = 0;
  if (active) *active = 0;
  return 0;
}

#define FAILS(name) extern "C" int name() { return INVALID_DEVICE; }
FAILS(cuInit)
FAILS(cuCtxGetCurrent)
FAILS(cuCtxSetCurrent)
FAILS(cuDeviceGet)
FAILS(cuDeviceGetAttribute)
FAILS(cuDevicePrimaryCtxRetain)
FAILS(cuFuncGetAttribute)
FAILS(cuFuncSetAttribute)
FAILS(cuFuncSetCacheConfig)
FAILS(cuGetErrorString)
FAILS(cuLaunchCooperativeKernel)
FAILS(cuLaunchKernel)
FAILS(cuLinkAddData_v2)
FAILS(cuLinkComplete)
FAILS(cuLinkCreate_v2)
FAILS(cuModuleGetFunction)
FAILS(cuModuleLoad)
FAILS(cuModuleLoadData)
FAILS(cuModuleLoadDataEx)
FAILS(cuModuleUnload)
FAILS(cuOccupancyMaxActiveBlocksPerMultiprocessor)
FAILS(cuPointerGetAttribute)
FAILS(cuTensorMapEncodeTiled)
