// Layout: how a model reads a config and a conversation, from its manifest. Encoders read blocks
// (render.h), decoders one causal sequence (render_chat.h); the stages ask `is_causal` and nothing
// else about the backbone.
#ifndef CSRM_SRC_LAYOUT_H_
#define CSRM_SRC_LAYOUT_H_

#include <cstddef>

#include "render.h"
#include "render_chat.h"

namespace csrm {

struct Layout {
  bool is_causal = false;
  Template blocks{};         // unless is_causal
  ChatTemplate chat;         // if is_causal
  size_t max_positions = 0;  // if is_causal: a longer config and conversation is LimitExceeded
};

}  // namespace csrm

#endif  // CSRM_SRC_LAYOUT_H_
