// device = "tensorrt" of a build without CSRM_TENSORRT=ON; see trt_engine.h.
#include "trt_engine.h"

namespace csrm {

Result<std::string> find_trt_support() {
  return {Code::kEngineUnavailable,
          "device \"tensorrt\" cannot be had: this build of csrm has no TensorRT engine; build it "
          "with CSRM_TENSORRT=ON, or give device = \"cuda\" or \"cpu\""};
}

Status check_trt_engine(const TrtEngineFile&) { return find_trt_support().status(); }

Result<LoadedTrtEngine> load_trt_engine(const Artifact&) { return find_trt_support().status(); }

}  // namespace csrm
