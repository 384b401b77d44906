// How much of its rounds a test does.
//
// ThreadSanitizer makes everything ten times slower, and what it can find in the engine's few threads it finds in the
// first rounds: the longest tests do a third of them there. All of them run in the other builds.
//
// Thread safety: constants.
#pragma once

namespace tarnfs::testing {

#if defined(__SANITIZE_THREAD__)
inline constexpr unsigned kOneRoundOf = 3;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
inline constexpr unsigned kOneRoundOf = 3;
#else
inline constexpr unsigned kOneRoundOf = 1;
#endif
#else
inline constexpr unsigned kOneRoundOf = 1;
#endif

}  // namespace tarnfs::testing
