// The host image: a cloud image, provisioned by the roles of ansible/, cleaned, switched off. `vaultcube host build`
// calls this twice, once for each build below, gives every variable, and signs off what comes out; docs/host-image.md.
// Written in what Packer 1.6.6 and current ones have in common; the plugins that newer ones need are in packer/plugins/.

locals {
  // The seed makes one user with one key; the key was made for this build and is deleted after it.
  qemuargs = [
    ["-cpu", var.cpu_model],
    ["-display", "none"],
    ["-serial", "file:${var.work}/console.log"],
    ["-pidfile", "${var.work}/vm.pid"],
  ]
}

// Stage 2, build: the cloud image boots here, with the size and the user that the roles expect.
source "qemu" "base" {
  iso_url      = var.source_image
  iso_checksum = "sha256:${var.source_sha256}"
  disk_image   = true
  disk_size    = var.disk_size
  format       = "qcow2"

  vm_name          = "disk.qcow2"
  output_directory = var.output
  skip_compaction  = true

  qemu_binary    = var.qemu_binary
  accelerator    = var.accelerator
  memory         = var.memory
  cpus           = var.cpus
  headless       = true
  net_device     = "virtio-net"
  disk_interface = "virtio"
  disk_discard   = "unmap"
  qemuargs       = local.qemuargs

  cd_files = ["${var.work}/seed/user-data", "${var.work}/seed/meta-data"]
  cd_label = "cidata"

  communicator           = "ssh"
  ssh_username           = var.build_user
  ssh_private_key_file   = var.build_key
  ssh_timeout            = var.ssh_timeout
  ssh_handshake_attempts = 1000
  host_port_min          = var.ssh_port
  host_port_max          = var.ssh_port
  boot_wait              = "1s"
  shutdown_command       = "sudo systemctl poweroff"
  shutdown_timeout       = var.shutdown_timeout
}

// Stage 3, provision: the same machine again, from the disk of stage 2.
source "qemu" "image" {
  iso_url      = var.source_image
  iso_checksum = "sha256:${var.source_sha256}"
  disk_image   = true
  disk_size    = var.disk_size
  format       = "qcow2"

  vm_name          = "disk.qcow2"
  output_directory = var.output
  skip_compaction  = true

  qemu_binary    = var.qemu_binary
  accelerator    = var.accelerator
  memory         = var.memory
  cpus           = var.cpus
  headless       = true
  net_device     = "virtio-net"
  disk_interface = "virtio"
  disk_discard   = "unmap"
  qemuargs       = local.qemuargs

  cd_files = ["${var.work}/seed/user-data", "${var.work}/seed/meta-data"]
  cd_label = "cidata"

  communicator           = "ssh"
  ssh_username           = var.build_user
  ssh_private_key_file   = var.build_key
  ssh_timeout            = var.ssh_timeout
  ssh_handshake_attempts = 1000
  host_port_min          = var.ssh_port
  host_port_max          = var.ssh_port
  boot_wait              = "1s"
  // The last thing that the build user may do: finalise.sh removes it, then switches off.
  shutdown_command = "sudo /var/tmp/finalise.sh last ${var.build_user}"
  shutdown_timeout = var.shutdown_timeout
}

build {
  sources = ["source.qemu.base"]

  provisioner "shell" {
    execute_command = "chmod +x {{ .Path }}; sudo env {{ .Vars }} {{ .Path }}"
    script          = "${path.root}/scripts/settle.sh"
  }
}

build {
  sources = ["source.qemu.image"]

  provisioner "shell" {
    execute_command = "chmod +x {{ .Path }}; sudo env {{ .Vars }} {{ .Path }}"
    script          = "${path.root}/scripts/settle.sh"
  }

  provisioner "ansible" {
    playbook_file  = "${path.root}/../ansible/playbooks/site.yml"
    inventory_file = "${path.root}/../ansible/inventories/build/hosts.yml"
    user           = var.build_user
    // Straight to the forwarded port: the proxy of the plugin breaks with newer SSH clients, and is slower.
    use_proxy       = false
    extra_arguments = ["--extra-vars", "@${var.work}/variables.json", "--tags", var.tags]
    ansible_env_vars = [
      "ANSIBLE_CACHE_PLUGIN_CONNECTION=${var.facts_cache}",
      "ANSIBLE_SSH_CONTROL_PATH_DIR=${var.work}/cp",
      "ANSIBLE_FORCE_COLOR=0",
      "ANSIBLE_NOCOLOR=1",
    ]
  }

  provisioner "file" {
    source      = "${path.root}/scripts/finalise.sh"
    destination = "/var/tmp/finalise.sh"
  }

  // What the manifest and the list of materials are made from, read while there is still a user who can.
  provisioner "shell" {
    inline = ["chmod 0755 /var/tmp/finalise.sh", "sudo /var/tmp/finalise.sh inventory /var/tmp/inventory.tar ${var.build_user}"]
  }

  provisioner "file" {
    direction   = "download"
    source      = "/var/tmp/inventory.tar"
    destination = "${var.work}/inventory.tar"
  }

  provisioner "shell" {
    inline = ["sudo /var/tmp/finalise.sh clean ${var.build_user}"]
  }

  post-processor "manifest" {
    output     = "${var.work}/packer-manifest.json"
    strip_path = true
  }
}
