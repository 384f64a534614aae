// device = "tensorrt" of a build without CSRM_TENSORRT=ON; see trt_engine.h.
#include "trt_engine.h"

namespace csrm {

Result<LoadedTrtEngine> load_trt_engine(const Artifact&) {
  return {Code::kEngineUnavailable,
          "this build of csrm has no TensorRT engine; build it with CSRM_TENSORRT=ON, or give "
          "device = \"cuda\" or \"cpu\""};
}

}  // namespace csrm
