// Configs and conversations from JSON texts: what a gateway reads from a file and from its traffic.
// Not: other formats (Python's csrm.config reads YAML, Markdown and text, and `csrm config json`
// writes what is read here) and not scoring. Nothing here throws; errors never contain the text.
#ifndef CSRM_JSON_H_
#define CSRM_JSON_H_

#include <string_view>

#include "csrm/status.h"
#include "csrm/types.h"
#include "csrm/visibility.h"

namespace csrm {

// The config in `json`, an object after csrm/config.schema.json: "rules" is a list of texts or of
// objects with "text" and "name"; "threshold" is 0.5 if missing. The rest of the schema is checked
// and left out. Thread-safe.
// Errors: BadUtf8, BadConfig, EmptyConfig, LimitExceeded (more than 1 MiB, or out of memory).
CSRM_API Result<Config> parse_config_json(std::string_view json) noexcept;

// The conversation in `json`: the body of a chat request, an object whose "messages" (or
// "conversation") is the list, or that list alone. A message has a "role" (developer is read as
// system, function as tool) and a "content": a text, a list of {"type": "text", "text": ...}
// (joined by newlines), or null beside "tool_calls" (empty). Other keys are ignored, other parts
// refused: nothing is left out in silence. Thread-safe. Errors: BadUtf8, BadConversation,
// EmptyConversation, UnknownRole, LimitExceeded (more than 16 MiB, or out of memory).
CSRM_API Result<Conversation> parse_conversation_json(std::string_view json) noexcept;

}  // namespace csrm

#endif  // CSRM_JSON_H_
