// The names and sentences of status codes, generated from the table in csrm/status.h.
// Not: turning a Status into a Python exception (bind_status.cc) or a C code (the C API).
#include "csrm/status.h"

namespace csrm {

const char* code_name(Code code) noexcept {
  switch (code) {
#define CSRM_STATUS_NAME(enumerator, number, cls, sentence) \
  case Code::enumerator:                                    \
    return #cls;
    CSRM_STATUS_TABLE(CSRM_STATUS_NAME)
#undef CSRM_STATUS_NAME
  }
  return "Internal";
}

const char* code_sentence(Code code) noexcept {
  switch (code) {
#define CSRM_STATUS_SENTENCE(enumerator, number, cls, sentence) \
  case Code::enumerator:                                        \
    return sentence;
    CSRM_STATUS_TABLE(CSRM_STATUS_SENTENCE)
#undef CSRM_STATUS_SENTENCE
  }
  return code_sentence(Code::kInternal);
}

}  // namespace csrm
