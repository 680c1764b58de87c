// `vaultcube host build` gives all of these; the defaults let `packer validate packer` say what is wrong with the template.

variable "source_image" {
  type        = string
  description = "The cloud image (stage build) or the disk of stage build (stage provision): a path or an address."
  default     = "https://cloud-images.ubuntu.com/releases/noble/release-20260911/ubuntu-24.04-server-cloudimg-amd64.img"
}

variable "source_sha256" {
  type        = string
  description = "Its SHA-256. Packer refuses anything else."
  default     = "612b2c0cc1bc413a6cb8c38fd611794caf0f2b436c50013d8b3794db12ad7354"
}

variable "accelerator" {
  type        = string
  description = "kvm on Linux, hvf on a Mac, tcg (emulated, many times slower) where there is neither."
  default     = "kvm"
}

variable "cpu_model" {
  type        = string
  description = "What the guest sees: host with kvm and hvf, max with tcg."
  default     = "host"
}

variable "qemu_binary" {
  type        = string
  description = "The emulator."
  default     = "qemu-system-x86_64"
}

variable "disk_size" {
  type        = string
  description = "Of the image; the root file system grows into a bigger disk at the first boot."
  default     = "20G"
}

variable "memory" {
  type        = number
  description = "Of the virtual machine that builds, in MB."
  default     = 4096
}

variable "cpus" {
  type        = number
  description = "Of the virtual machine that builds."
  default     = 2
}

variable "work" {
  type        = string
  description = "Folder with seed/, variables.json; receives console.log, vm.pid, inventory.tar, packer-manifest.json."
  default     = "/tmp/vaultcube-hostimage"
}

variable "output" {
  type        = string
  description = "Folder for disk.qcow2; must not exist yet."
  default     = "/tmp/vaultcube-hostimage/disk"
}

variable "facts_cache" {
  type        = string
  description = "Where Ansible keeps facts of this base image between builds."
  default     = "/tmp/vaultcube-hostimage/facts"
}

variable "build_user" {
  type        = string
  description = "Made by the seed, removed by finalise.sh."
  default     = "builder"
}

variable "build_key" {
  type        = string
  description = "The private half of the key in the seed. The file may be empty for `packer validate`."
  default     = "/dev/null"
}

variable "ssh_port" {
  type        = number
  description = "Port of this machine that leads to the guest's port 22."
  default     = 2222
}

variable "ssh_timeout" {
  type        = string
  description = "How long the guest may take until it answers."
  default     = "10m"
}

variable "shutdown_timeout" {
  type        = string
  description = "How long switching off may take."
  default     = "5m"
}

variable "tags" {
  type        = string
  description = "Which layers of ansible/playbooks/site.yml are in the image."
  default     = "layer1,layer2,layer3"
}
