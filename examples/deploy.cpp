// The example model on any machine: compiled bundle in, the next bytes of a text out.
//
//   deploy BUNDLE TEXT COUNT
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

int main(int argc, char **argv) {
  if (argc != 4) {
    std::fputs("usage: deploy BUNDLE TEXT COUNT\n", stderr);
    return 2;
  }
  const std::string bundle = argv[1];

  Ort::Env env;
  Ort::SessionOptions options;
  options.RegisterCustomOpsLibrary((bundle + "/libbitcc_ops.so").c_str());
  Ort::Session session(env, (bundle + "/model.onnx").c_str(), options);

  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const std::array<const char *, 2> inputs = {"tokens", "past"}, outputs = {"logits", "present"};
  std::vector<int64_t> tokens(argv[2], argv[2] + std::string(argv[2]).size());
  std::vector<int64_t> shape = session.GetInputTypeInfo(1).GetTensorTypeAndShapeInfo().GetShape();
  shape[2] = 1, shape[4] = 0; // one text, and nothing remembered yet
  float nothing = 0;
  Ort::Value past = Ort::Value::CreateTensor<float>(memory, &nothing, 0, shape.data(), shape.size());
  for (int i = std::atoi(argv[3]); i > 0; i--) {
    const std::array<int64_t, 2> dims = {1, static_cast<int64_t>(tokens.size())};
    std::array<Ort::Value, 2> values = {
        Ort::Value::CreateTensor<int64_t>(memory, tokens.data(), tokens.size(), dims.data(), dims.size()),
        std::move(past)};
    auto results = session.Run({}, inputs.data(), values.data(), inputs.size(), outputs.data(), outputs.size());
    const int64_t width = results[0].GetTensorTypeAndShapeInfo().GetShape().back();
    const float *logits = results[0].GetTensorData<float>() + (dims[1] - 1) * width;
    tokens = {std::max_element(logits, logits + width) - logits};
    past = std::move(results[1]);
    std::putchar(static_cast<int>(tokens[0]));
  }
}
