// CSRM_API: marks what libcsrm exports; everything else is hidden. Valid C99 and C++.
#ifndef CSRM_VISIBILITY_H_
#define CSRM_VISIBILITY_H_

#if defined(__GNUC__) || defined(__clang__)
#define CSRM_API __attribute__((visibility("default")))
#else
#define CSRM_API
#endif

#endif  // CSRM_VISIBILITY_H_
