# Builds every image: docker buildx bake -f images/docker-bake.hcl [TARGET]
# Each variable is also the name of the environment variable that sets it; empty means its default.

variable "BASE_IMAGE" {
  default = ""
}

# What TensorFlow's cu128 is built FROM instead of the base.
variable "NGC_IMAGE" {
  default = ""
}

# A folder of wheels, tried before the package index; with all wheels of a lock in it, no index is needed.
variable "WHEELHOUSE" {
  default = ""
}

# A file of CA certificates for builds behind a private CA: a secret of the build, never in a layer.
variable "CA_BUNDLE" {
  default = ""
}

variable "VAULTCUBE_VERSION" {
  default = ""
}

variable "VAULTCUBE_REVISION" {
  default = ""
}

# This folder, as seen from where the command runs.
variable "IMAGES_DIR" {
  default = "images"
}

# The Python package, for the image that carries modules of it.
variable "PACKAGE_DIR" {
  default = "orchestrator/vaultcube"
}

# For the target `image`: which folder, and which flavour of it.
variable "VAULTCUBE_IMAGE" {
  default = "none"
}

variable "VAULTCUBE_FLAVOUR" {
  default = "any"
}

# Proxies, in either spelling: pip takes both, apt the lower case only.
variable "HTTP_PROXY" {
  default = ""
}

variable "HTTPS_PROXY" {
  default = ""
}

variable "NO_PROXY" {
  default = ""
}

variable "http_proxy" {
  default = ""
}

variable "https_proxy" {
  default = ""
}

variable "no_proxy" {
  default = ""
}

# An argument only where there is a value: an empty one would hide the proxies of Docker's own configuration.
function "proxy" {
  params = [upper_name, lower_name, upper_value, lower_value]
  result = "${upper_value}${lower_value}" == "" ? {} : {
    "${upper_name}" = upper_value != "" ? upper_value : lower_value
    "${lower_name}" = lower_value != "" ? lower_value : upper_value
  }
}

group "default" {
  targets = ["pytorch", "tensorflow", "recorder", "vllm", "proxy"]
}

group "pytorch" {
  targets = ["pytorch-cu124", "pytorch-cu128"]
}

group "tensorflow" {
  targets = ["tensorflow-cu124", "tensorflow-cu128"]
}

group "recorder" {
  targets = ["recorder-any"]
}

group "vllm" {
  targets = ["vllm-cu124", "vllm-cu128", "vllm-cpu"]
}

group "proxy" {
  targets = ["proxy-any"]
}

target "_common" {
  context  = IMAGES_DIR
  contexts = WHEELHOUSE != "" ? { wheelhouse = WHEELHOUSE } : {}
  secret   = CA_BUNDLE != "" ? ["id=ca,src=${CA_BUNDLE}"] : []
  # Without this a builder of the container driver would keep the image to itself.
  output = ["type=docker"]
  args = merge(
    {
      BASE_IMAGE         = BASE_IMAGE != "" ? BASE_IMAGE : "debian:bookworm-slim"
      VAULTCUBE_VERSION  = VAULTCUBE_VERSION != "" ? VAULTCUBE_VERSION : "0"
      VAULTCUBE_REVISION = VAULTCUBE_REVISION != "" ? VAULTCUBE_REVISION : "unknown"
    },
    # Predefined by the builder: used in RUN, kept in no layer and no cache key.
    proxy("HTTP_PROXY", "http_proxy", HTTP_PROXY, http_proxy),
    proxy("HTTPS_PROXY", "https_proxy", HTTPS_PROXY, https_proxy),
    proxy("NO_PROXY", "no_proxy", NO_PROXY, no_proxy),
  )
}

# Any image that needs no more than the others: what vaultcube builds where no target below has the image's name.
target "image" {
  inherits   = ["_common"]
  dockerfile = "${VAULTCUBE_IMAGE}/Dockerfile"
  contexts   = { vaultcube = PACKAGE_DIR }
  args       = { FLAVOUR = VAULTCUBE_FLAVOUR }
  tags       = ["vaultcube/${VAULTCUBE_IMAGE}:${VAULTCUBE_FLAVOUR}"]
}

target "pytorch-cu124" {
  inherits   = ["_common"]
  dockerfile = "pytorch/Dockerfile"
  args       = { FLAVOUR = "cu124" }
  tags       = ["vaultcube/pytorch:cu124"]
}

target "pytorch-cu128" {
  inherits   = ["_common"]
  dockerfile = "pytorch/Dockerfile"
  args       = { FLAVOUR = "cu128" }
  tags       = ["vaultcube/pytorch:cu128"]
}

target "tensorflow-cu124" {
  inherits   = ["_common"]
  dockerfile = "tensorflow/Dockerfile"
  args       = { FLAVOUR = "cu124" }
  tags       = ["vaultcube/tensorflow:cu124"]
}

target "tensorflow-cu128" {
  inherits   = ["_common"]
  dockerfile = "tensorflow/Dockerfile"
  args = {
    FLAVOUR   = "cu128"
    NGC_IMAGE = NGC_IMAGE != "" ? NGC_IMAGE : "nvcr.io/nvidia/tensorflow:25.02-tf2-py3"
  }
  tags = ["vaultcube/tensorflow:cu128"]
}

target "recorder-any" {
  inherits   = ["_common"]
  dockerfile = "recorder/Dockerfile"
  contexts   = { vaultcube = PACKAGE_DIR }
  args       = { FLAVOUR = "any" }
  tags       = ["vaultcube/recorder:any"]
}

# What vLLM is built FROM: the PyTorch image without the programs that run in it, so that touching one of those does
# not install vLLM again. The layers are the image's own.
target "_framework-cu124" {
  inherits = ["pytorch-cu124"]
  target   = "framework"
  # Without a name, a builder of the docker driver would leave it as an image of none.
  tags = ["vaultcube/pytorch:cu124-framework"]
}

target "_framework-cu128" {
  inherits = ["pytorch-cu128"]
  target   = "framework"
  # Without a name, a builder of the docker driver would leave it as an image of none.
  tags = ["vaultcube/pytorch:cu128-framework"]
}

target "vllm-cu124" {
  inherits   = ["_common"]
  dockerfile = "vllm/Dockerfile"
  contexts   = { vaultcube = PACKAGE_DIR, pytorch = "target:_framework-cu124" }
  args       = { FLAVOUR = "cu124" }
  tags       = ["vaultcube/vllm:cu124"]
}

target "vllm-cu128" {
  inherits   = ["_common"]
  dockerfile = "vllm/Dockerfile"
  contexts   = { vaultcube = PACKAGE_DIR, pytorch = "target:_framework-cu128" }
  args       = { FLAVOUR = "cu128" }
  tags       = ["vaultcube/vllm:cu128"]
}

target "vllm-cpu" {
  inherits   = ["_common"]
  dockerfile = "vllm/Dockerfile"
  contexts   = { vaultcube = PACKAGE_DIR }
  args       = { FLAVOUR = "cpu" }
  tags       = ["vaultcube/vllm:cpu"]
}

target "proxy-any" {
  inherits   = ["_common"]
  dockerfile = "proxy/Dockerfile"
  args       = { FLAVOUR = "any" }
  tags       = ["vaultcube/proxy:any"]
}
