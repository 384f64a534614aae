// A model folder on disk -> Artifact: every listed file verified before anything is loaded.
// Not: the engine (engine.h opens the model file) and not a sandbox: the folder is verified once,
// so whoever can write to it while a Scorer loads can still replace a file in between.
#ifndef CSRM_SRC_ARTIFACT_H_
#define CSRM_SRC_ARTIFACT_H_

#include <string>

#include "csrm/status.h"
#include "manifest.h"
#include "sha256.h"

namespace csrm {

struct Artifact {
  Manifest manifest;
  std::string directory;       // where the files lie
  Sha256Digest digest{};       // of the bytes of manifest.json, which holds every other digest
  std::string portable_path;   // model.onnx
  std::string fused_path;      // model.fused.onnx; empty when there is none
  std::string int8_path;       // model.int8.onnx; empty when there is none
  std::string half_path;       // model.half.onnx; empty when there is none
  std::string cuda_path;       // model.cuda.onnx; empty when there is none
  std::string tokenizer_json;  // the bytes that were verified, so they cannot change afterwards
};

// Opens the artifact in folder `directory` (the folder itself may be a symbolic link; its files
// may not). Reads every listed file once.
// Errors: BadArtifact (no folder, a file missing, a link or not a regular file, a wrong size, a
// malformed manifest, a model with weights in an unlisted file), DigestMismatch (a file's bytes
// differ from the manifest), Unsupported.
Result<Artifact> open_artifact(const std::string& directory);

}  // namespace csrm

#endif  // CSRM_SRC_ARTIFACT_H_
