/* The part of onnxruntime's C API that bitcc uses, declared by ourselves.
 *
 * No package that a build could depend on carries the official header. The table of functions is
 * append-only and its indices are stable, so that a declaration with named gaps is enough; every
 * index is asserted below. Version 17 (onnxruntime 1.17) is the oldest table that has all of them.
 */
#ifndef BITCC_ORT_API_H
#define BITCC_ORT_API_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define BITCC_ORT_API_VERSION 17

typedef struct OrtStatus OrtStatus; /* NULL is success */
typedef struct OrtValue OrtValue;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtShapeInferContext OrtShapeInferContext;
typedef struct OrtOpAttr OrtOpAttr;
typedef struct OrtApi OrtApi;
typedef struct OrtCustomOp OrtCustomOp;

typedef enum {
  ORT_FAIL = 1,
  ORT_INVALID_ARGUMENT = 2,
  ORT_RUNTIME_EXCEPTION = 6,
  ORT_NOT_IMPLEMENTED = 9,
} OrtErrorCode;

/* As in TensorProto.DataType. */
typedef enum {
  ORT_UNDEFINED = 0,
  ORT_FLOAT = 1,
  ORT_UINT8 = 2,
  ORT_FLOAT16 = 10,
  ORT_BFLOAT16 = 16,
} OrtElementType;

typedef enum { ORT_ATTRIBUTE_INT = 1 } OrtOpAttrType;
typedef enum { ORT_REQUIRED = 0 } OrtCharacteristic;
typedef enum { ORT_MEMORY_CPU_INPUT = -2, ORT_MEMORY_DEFAULT = 0 } OrtMemType;

typedef struct {
  const OrtApi *(*GetApi)(uint32_t version);
  const char *(*GetVersionString)(void);
} OrtApiBase;

typedef void (*OrtUnusedFunction)(void);

struct OrtApi {
  OrtStatus *(*CreateStatus)(OrtErrorCode, const char *message);
  OrtUnusedFunction unused_1[25];
  OrtStatus *(*CreateCustomOpDomain)(const char *domain, OrtCustomOpDomain **);
  OrtStatus *(*CustomOpDomain_Add)(OrtCustomOpDomain *, const OrtCustomOp *);
  OrtStatus *(*AddCustomOpDomain)(OrtSessionOptions *, OrtCustomOpDomain *);
  OrtUnusedFunction unused_29[22];
  OrtStatus *(*GetTensorMutableData)(OrtValue *, void **data);
  OrtUnusedFunction unused_52[5];
  OrtStatus *(*CreateTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo **);
  OrtStatus *(*SetTensorElementType)(OrtTensorTypeAndShapeInfo *, OrtElementType);
  OrtStatus *(*SetDimensions)(OrtTensorTypeAndShapeInfo *, const int64_t *, size_t count);
  OrtStatus *(*GetTensorElementType)(const OrtTensorTypeAndShapeInfo *, OrtElementType *);
  OrtStatus *(*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo *, size_t *);
  OrtStatus *(*GetDimensions)(const OrtTensorTypeAndShapeInfo *, int64_t *, size_t count);
  OrtStatus *(*GetSymbolicDimensions)(const OrtTensorTypeAndShapeInfo *, const char **, size_t);
  OrtUnusedFunction unused_64;
  OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *, OrtTensorTypeAndShapeInfo **);
  OrtUnusedFunction unused_66[19];
  OrtStatus *(*KernelInfoGetAttribute_float)(const OrtKernelInfo *, const char *, float *);
  OrtStatus *(*KernelInfoGetAttribute_int64)(const OrtKernelInfo *, const char *, int64_t *);
  OrtStatus *(*KernelInfoGetAttribute_string)(const OrtKernelInfo *, const char *, char *,
                                              size_t *size);
  OrtUnusedFunction unused_88[2];
  OrtStatus *(*KernelContext_GetInput)(const OrtKernelContext *, size_t, const OrtValue **);
  OrtStatus *(*KernelContext_GetOutput)(OrtKernelContext *, size_t, const int64_t *dims,
                                        size_t count, OrtValue **);
  OrtUnusedFunction unused_92;
  void (*ReleaseStatus)(OrtStatus *);
  OrtUnusedFunction unused_94[5];
  void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo *);
  OrtUnusedFunction unused_100;
  void (*ReleaseCustomOpDomain)(OrtCustomOpDomain *);
  OrtUnusedFunction unused_102[91];
  OrtStatus *(*KernelContext_GetGPUComputeStream)(const OrtKernelContext *, void **stream);
  OrtUnusedFunction unused_194[50];
  OrtStatus *(*KernelInfo_GetNodeName)(const OrtKernelInfo *, char *, size_t *size);
  OrtUnusedFunction unused_245[4];
  OrtStatus *(*KernelInfoGetConstantInput_tensor)(const OrtKernelInfo *, size_t, int *is_constant,
                                                  const OrtValue **);
  OrtUnusedFunction unused_250[18];
  OrtStatus *(*ShapeInferContext_GetInputTypeShape)(const OrtShapeInferContext *, size_t,
                                                    OrtTensorTypeAndShapeInfo **);
  OrtStatus *(*ShapeInferContext_GetAttribute)(const OrtShapeInferContext *, const char *,
                                               const OrtOpAttr **);
  OrtStatus *(*ShapeInferContext_SetOutputTypeShape)(const OrtShapeInferContext *, size_t,
                                                     const OrtTensorTypeAndShapeInfo *);
  OrtStatus *(*SetSymbolicDimensions)(OrtTensorTypeAndShapeInfo *, const char **, size_t);
  OrtStatus *(*ReadOpAttr)(const OrtOpAttr *, OrtOpAttrType, void *data, size_t, size_t *read);
  OrtUnusedFunction unused_273;
  OrtStatus *(*KernelContext_ParallelFor)(const OrtKernelContext *, void (*)(void *, size_t),
                                          size_t total, size_t batches, void *argument);
};

#define BITCC_ORT_INDEX(function, index)                                                          \
  static_assert(offsetof(OrtApi, function) == (index) * sizeof(OrtUnusedFunction), #function)
BITCC_ORT_INDEX(CreateStatus, 0);
BITCC_ORT_INDEX(CreateCustomOpDomain, 26);
BITCC_ORT_INDEX(CustomOpDomain_Add, 27);
BITCC_ORT_INDEX(AddCustomOpDomain, 28);
BITCC_ORT_INDEX(GetTensorMutableData, 51);
BITCC_ORT_INDEX(CreateTensorTypeAndShapeInfo, 57);
BITCC_ORT_INDEX(GetSymbolicDimensions, 63);
BITCC_ORT_INDEX(GetTensorTypeAndShape, 65);
BITCC_ORT_INDEX(KernelInfoGetAttribute_float, 85);
BITCC_ORT_INDEX(KernelInfoGetAttribute_string, 87);
BITCC_ORT_INDEX(KernelContext_GetInput, 90);
BITCC_ORT_INDEX(KernelContext_GetOutput, 91);
BITCC_ORT_INDEX(ReleaseStatus, 93);
BITCC_ORT_INDEX(ReleaseTensorTypeAndShapeInfo, 99);
BITCC_ORT_INDEX(ReleaseCustomOpDomain, 101);
BITCC_ORT_INDEX(KernelContext_GetGPUComputeStream, 193);
BITCC_ORT_INDEX(KernelInfo_GetNodeName, 244);
BITCC_ORT_INDEX(KernelInfoGetConstantInput_tensor, 249);
BITCC_ORT_INDEX(ShapeInferContext_GetInputTypeShape, 268);
BITCC_ORT_INDEX(ReadOpAttr, 272);
BITCC_ORT_INDEX(KernelContext_ParallelFor, 274);

struct OrtCustomOp {
  uint32_t version;
  void *(*CreateKernel)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *);
  const char *(*GetName)(const OrtCustomOp *);
  const char *(*GetExecutionProviderType)(const OrtCustomOp *);
  OrtElementType (*GetInputType)(const OrtCustomOp *, size_t);
  size_t (*GetInputTypeCount)(const OrtCustomOp *);
  OrtElementType (*GetOutputType)(const OrtCustomOp *, size_t);
  size_t (*GetOutputTypeCount)(const OrtCustomOp *);
  void (*KernelCompute)(void *kernel, OrtKernelContext *);
  void (*KernelDestroy)(void *kernel);
  OrtCharacteristic (*GetInputCharacteristic)(const OrtCustomOp *, size_t);
  OrtCharacteristic (*GetOutputCharacteristic)(const OrtCustomOp *, size_t);
  OrtMemType (*GetInputMemoryType)(const OrtCustomOp *, size_t);
  int (*GetVariadicInputMinArity)(const OrtCustomOp *);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp *);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp *);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp *);
  OrtStatus *(*CreateKernelV2)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *,
                               void **kernel);
  OrtStatus *(*KernelComputeV2)(void *kernel, OrtKernelContext *);
  OrtStatus *(*InferOutputShapeFn)(const OrtCustomOp *, OrtShapeInferContext *);
  int (*GetStartVersion)(const OrtCustomOp *);
  int (*GetEndVersion)(const OrtCustomOp *);
  /* Since version 18, not read by an op that says 17. */
  size_t (*GetMayInplace)(int **inputs, int **outputs);
  void (*ReleaseMayInplace)(int *inputs, int *outputs);
  size_t (*GetAliasMap)(int **inputs, int **outputs);
  void (*ReleaseAliasMap)(int *inputs, int *outputs);
};
static_assert(sizeof(OrtCustomOp) == 26 * sizeof(OrtUnusedFunction), "26 fields");

#endif
