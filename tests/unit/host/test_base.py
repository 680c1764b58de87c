"""Layer 1, on what real tools were recorded to say. The real tools themselves: tests/host."""

from __future__ import annotations

import pytest
from tests.unit.host.conftest import Host, recorded

SETTINGS = "clientaliveinterval 300\nclientalivecountmax 2\nallowusers vaultadmin\n"


def hardened() -> str:
    text = recorded("sshd-T.txt").replace("permitrootlogin without-password", "permitrootlogin no")
    text = text.replace("passwordauthentication yes", "passwordauthentication no")
    kept = [line for line in text.splitlines() if not line.startswith("clientalive")]
    return "\n".join(kept) + "\n" + SETTINGS


def test_the_system(host: Host) -> None:
    host.file("/etc/os-release", recorded("os-release.txt"))
    assert host.check("system").verdict == "PASS"
    host.file("/etc/os-release", "ID=fedora\nVERSION_ID=40\nPRETTY_NAME='Fedora 40'\n")
    found = host.check("system")
    assert (found.verdict, found.seen.split(";")[0]) == ("FAIL", "Fedora 40")
    (host.root / "etc/os-release").unlink()
    assert host.check("system").verdict == "UNAVAILABLE"


def test_sshd_settings_in_effect(host: Host) -> None:
    host.says("sshd -T", hardened())
    assert host.check("ssh-config").verdict == "PASS"
    # What a later file, or a Match block for root alone, makes of it.
    host.says("sshd -T -C user=root,", hardened().replace("passwordauthentication no", "passwordauthentication yes"))
    found = host.check("ssh-config")
    assert (found.verdict, found.seen) == ("FAIL", "passwordauthentication is yes instead of no")
    host.says("sshd -T", hardened().replace("port 22\n", "port 22\nport 2222\n"))
    assert "port 22, 2222 instead of 22" in host.check("ssh-config").seen
    host.says("sshd -T", "")
    assert host.check("ssh-config").verdict == "INVALID"
    host.says("sshd -T", stderr="/etc/ssh/sshd_config: line 3: Bad configuration option: Prot\n", status=255)
    found = host.check("ssh-config")
    assert (found.verdict, found.seen) == (
        "INVALID",
        "sshd -T -C: /etc/ssh/sshd_config: line 3: Bad configuration option: Prot",
    )
    host.privileged = False
    assert (host.check("ssh-config").verdict, host.check("ssh-config").seen) == (
        "UNAVAILABLE",
        "only root can see this",
    )


def test_the_stock_settings_are_not_ours(host: Host) -> None:
    host.says("sshd -T", recorded("sshd-T.txt"))
    seen = host.check("ssh-config").seen
    assert "permitrootlogin is without-password instead of no" in seen
    assert "allowusers is not set instead of vaultadmin" in seen


def test_what_the_running_sshd_offers(host: Host) -> None:
    host.says("ssh", stderr=recorded("ssh-none.txt"), status=255)
    assert (host.check("ssh-offers").verdict, host.check("ssh-offers").seen) == ("FAIL", "it offers password")
    host.says("ssh", stderr="vaultadmin@127.0.0.1: Permission denied (publickey).\n", status=255)
    assert (host.check("ssh-offers").verdict, host.check("ssh-offers").seen) == ("PASS", "only publickey")
    host.says("ssh")
    assert host.check("ssh-offers").seen == "it lets vaultadmin in without a key"
    host.says("ssh", stderr="ssh: connect to host 127.0.0.1 port 22: Connection refused\n", status=255)
    assert (host.check("ssh-offers").verdict, host.check("ssh-offers").seen) == ("FAIL", "Connection refused")
    host.lacks("ssh")
    assert host.check("ssh-offers").verdict == "UNAVAILABLE"


def test_the_administrator(host: Host) -> None:
    host.says("getent passwd vaultadmin", "vaultadmin:x:1000:1000::/home/vaultadmin:/bin/bash\n")
    host.says("id -Gn", "vaultadmin sudo docker\n")
    assert host.check("user").verdict == "PASS"
    host.says("id -Gn", "vaultadmin docker\n")
    host.says("getent passwd vaultadmin", "vaultadmin:x:1001:1000::/home/vaultadmin:/bin/sh\n")
    found = host.check("user").seen
    assert "uid is 1001 instead of 1000" in found
    assert "shell is /bin/sh instead of /bin/bash" in found
    assert "not in sudo" in found
    host.says("getent passwd vaultadmin", status=2)
    assert (host.check("user").verdict, host.check("user").seen) == ("FAIL", "there is no user vaultadmin")


def test_sudo(host: Host) -> None:
    host.says("getent passwd vaultadmin", "vaultadmin:x:1000:1000::/home/vaultadmin:/bin/bash\n")
    host.says("sudo -n -l -U", recorded("sudo-l.txt"))
    host.says("passwd -S", recorded("passwd-S.txt").replace(" L ", " P "))
    assert host.check("sudo").verdict == "PASS"
    host.says("passwd -S", recorded("passwd-S.txt"))
    assert host.check("sudo").verdict == "FAIL"
    host.expects(user={"password": False})
    assert host.check("sudo").verdict == "UNAVAILABLE"
    host.says("sudo -n -l -U", recorded("sudo-l.txt").replace("(ALL : ALL) ALL", "(ALL) NOPASSWD: ALL"))
    assert host.check("sudo").seen == "vaultadmin needs no password: (ALL) NOPASSWD: ALL"
    host.says("sudo -n -l -U", "User vaultadmin is not allowed to run sudo on host.\n")
    assert host.check("sudo").seen == "vaultadmin may not use sudo"


def test_the_firewall(host: Host) -> None:
    host.says("ufw status verbose", recorded("ufw-status.txt"))
    assert host.check("firewall").verdict == "PASS"
    host.says("ufw status verbose", recorded("ufw-rules.txt").replace("deny (incoming)", "allow (incoming)"))
    found = host.check("firewall").seen
    assert "incoming is allow instead of deny" in found
    assert "8000 is open to everybody" in found
    assert "9100" not in found
    host.says("ufw status verbose", recorded("ufw-status.txt").replace("22/tcp ", "80/tcp "))
    assert "22/tcp is not let in" in host.check("firewall").seen
    host.says("ufw status verbose", recorded("ufw-inactive.txt"))
    assert (host.check("firewall").verdict, host.check("firewall").seen) == ("FAIL", "UFW is not active")
    host.lacks("ufw")
    found_it = host.check("firewall")
    assert (found_it.verdict, found_it.seen) == ("FAIL", "ufw is not installed")
    assert "--tags firewall" in str(found_it.next_step)


def test_the_rules_in_the_kernel(host: Host) -> None:
    host.says("iptables -S", recorded("iptables.txt"))
    host.says("ip6tables -S", recorded("ip6tables.txt"))
    assert (host.check("firewall-rules").verdict, host.check("firewall-rules").seen) == (
        "PASS",
        "IPv4 INPUT DROP, IPv6 INPUT DROP",
    )
    host.says("ip6tables -S", "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n")
    assert host.check("firewall-rules").seen == "IPv6: INPUT ends with ACCEPT; IPv6: ufw6-before-input is not called"
    host.says("iptables -S", "garbled")
    assert host.check("firewall-rules").verdict == "INVALID"


def test_the_rules_for_published_ports(host: Host) -> None:
    stock = recorded("iptables-docker.txt")
    host.says("iptables -S", stock)
    assert "drops nothing" in host.check("docker-rules").seen
    closed = stock.replace("-A DOCKER-USER -j RETURN", "-A DOCKER-USER -i docker0 -j RETURN\n-A DOCKER-USER -j DROP")
    host.says("iptables -S", closed)
    assert host.check("docker-rules").verdict == "PASS"
    # Behind a rule that lets everything go, nothing is dropped any more.
    host.says("iptables -S", closed.replace("-A DOCKER-USER -i", "-A DOCKER-USER -j RETURN\n-A DOCKER-USER -i"))
    assert "drops nothing" in host.check("docker-rules").seen
    host.says("iptables -S", closed.replace("-A FORWARD -j DOCKER-USER\n", "") + "-A FORWARD -j DOCKER-USER\n")
    assert "before Docker's own rules" in host.check("docker-rules").seen
    # As the engine leaves it after a network was removed: what it puts first accepts nothing.
    one, two = "-A FORWARD -j DOCKER-USER\n", "-A FORWARD -j DOCKER-ISOLATION-STAGE-1\n"
    host.says("iptables -S", closed.replace(two, "").replace(one, two + one))
    assert host.check("docker-rules").verdict == "PASS"
    host.says("iptables -S", recorded("iptables.txt"))
    assert host.check("docker-rules").seen == "there is no chain DOCKER-USER"


def test_fail2ban(host: Host) -> None:
    host.says("fail2ban-client status sshd", recorded("fail2ban-sshd.txt"))
    host.says("fail2ban-client get sshd maxretry", "5\n")
    host.says("fail2ban-client get sshd bantime", "600\n")
    found = host.check("fail2ban")
    assert (found.verdict, found.seen) == ("PASS", "jail sshd: 1 banned now, 0 failed so far")
    host.says("fail2ban-client get sshd bantime", "60\n")
    assert host.check("fail2ban").seen == "bantime is 60 instead of 600"
    host.says("fail2ban-client status sshd", stderr="Sorry but the jail 'sshd' does not exist\n", status=255)
    assert (host.check("fail2ban").verdict, host.check("fail2ban").seen) == ("FAIL", "there is no jail sshd")
    host.says("fail2ban-client status sshd", stderr="Failed to access socket path. Is fail2ban running?\n", status=255)
    assert (host.check("fail2ban").verdict, host.check("fail2ban").seen) == ("FAIL", "fail2ban does not run")
    host.says("fail2ban-client status sshd", "garbled\n")
    assert host.check("fail2ban").verdict == "INVALID"


def test_updates(host: Host) -> None:
    lists = "".join(
        f'Unattended-Upgrade::Package-Blacklist:: "{name}";\n' for name in ("nvidia-", "libnvidia-", "cuda-")
    )
    host.says("apt-config dump", recorded("apt-config.txt") + lists)
    host.says("unattended-upgrade")
    host.says("systemctl is-active", "active\n")
    assert host.check("updates").verdict == "PASS"
    host.says("systemctl is-active", "inactive\n", status=3)
    assert host.check("updates").seen == "apt-daily.timer is not active; apt-daily-upgrade.timer is not active"
    host.says("systemctl is-active", "active\n")
    host.says("apt-config dump", recorded("apt-config.txt") + 'Unattended-Upgrade::Automatic-Reboot "true";\n')
    found = host.check("updates").seen
    assert "automatic reboot is on" in found
    assert "nvidia- is not kept back from them" in found
    off = (
        recorded("apt-config.txt")
        .replace('Unattended-Upgrade "1"', 'Unattended-Upgrade "0"')
        .replace("security", "x")
        .replace("Security", "x")
    )
    host.says("apt-config dump", off + lists)
    found = host.check("updates").seen
    assert "APT::Periodic::Unattended-Upgrade is not on" in found
    assert "no origin of security updates" in found


def test_holds(host: Host) -> None:
    installed = (
        "nvidia-utils-580 installed\nnvidia-driver-pinning-580 installed\nbash installed\nnvidia-old config-files\n"
    )
    host.says("dpkg-query -W", installed)
    host.says("apt-mark showhold", "nvidia-utils-580\n")
    host.expects(updates={"held": ["nvidia-*", "!nvidia-driver-pinning-*"]})
    assert (host.check("held").verdict, host.check("held").seen) == ("PASS", "1 packages")
    host.says("apt-mark showhold", "")
    assert host.check("held").seen == "not held: nvidia-utils-580"


def test_the_engine(host: Host) -> None:
    host.says("docker info", recorded("docker-info.json"))
    host.says("docker compose version --short", "2.26.1\n")
    assert (host.check("docker").verdict, host.check("docker").seen) == ("PASS", "engine 26.1.5+dfsg1, compose 2.26.1")
    host.expects(docker={"minimum": "27.0"})
    assert host.check("docker").seen == "26.1.5+dfsg1 is older than 27.0"
    host.says("docker info", '{"ServerErrors": ["Cannot connect to the Docker daemon"]}', status=1)
    assert host.check("docker").seen == "no engine answers (Cannot connect to the Docker daemon)"
    host.privileged = False
    host.says("docker info", '{"ServerErrors": ["permission denied while trying to connect"]}', status=1)
    assert host.check("docker").verdict == "UNAVAILABLE"
    host.lacks("docker")
    assert (host.check("docker").verdict, host.check("docker").seen) == ("FAIL", "docker is not installed")


def test_the_engine_s_settings(host: Host) -> None:
    host.says("docker info", recorded("docker-info.json"))
    host.says("docker network inspect bridge", recorded("docker-bridge.json"))
    assert host.check("docker-settings").verdict == "PASS"
    host.says("docker network inspect bridge", recorded("docker-bridge.json").replace("127.0.0.1", "0.0.0.0"))  # noqa: S104
    host.says(
        "docker info", recorded("docker-info.json").replace('"LiveRestoreEnabled": true', '"LiveRestoreEnabled": false')
    )
    found = host.check("docker-settings").seen
    assert "live-restore is off" in found
    assert "published on 0.0.0.0" in found
    host.says("docker network inspect bridge", "[]")
    assert host.check("docker-settings").verdict == "INVALID"


def test_the_clock_and_the_zone(host: Host) -> None:
    host.says("timedatectl show", recorded("timedatectl.txt"))
    host.says("systemd-detect-virt --container", "none\n", status=1)
    assert host.check("timezone").verdict == "PASS"
    assert (host.check("clock").verdict, host.check("clock").seen) == ("FAIL", "nothing synchronises it")
    host.says("systemd-detect-virt --container", "docker\n")
    assert host.check("clock").verdict == "UNAVAILABLE"
    host.says("timedatectl show", "Timezone=Europe/Berlin\nNTPSynchronized=yes\n")
    assert host.check("clock").verdict == "PASS"
    assert host.check("timezone").seen == "Europe/Berlin instead of Etc/UTC"
    host.says("timedatectl show", stderr="Failed to connect to bus: Host is down\n", status=1)
    assert (host.check("clock").verdict, host.check("clock").seen) == ("UNAVAILABLE", "systemd does not run here")


def test_units_that_failed(host: Host) -> None:
    host.says("systemctl list-units --failed", "")
    assert host.check("failed-units").verdict == "PASS"
    host.says("systemctl list-units --failed", "ssh.service loaded failed failed OpenBSD Secure Shell server\n")
    assert (host.check("failed-units").verdict, host.check("failed-units").seen) == ("FAIL", "1 failed: ssh.service")


def test_nothing_is_started_when_it_must_not_be(host: Host) -> None:
    assert host.check("published-port", probes=False).seen == "no container may be started (--no-probes)"
    host.privileged = False
    assert host.check("published-port").seen == "only root can see this"


@pytest.mark.parametrize("code", ["tools", "python", "docker-boot", "sshd"])
def test_a_bare_host_fails(host: Host, code: str) -> None:
    host.says("systemctl is-enabled", "disabled\n", status=1)
    host.says("systemctl is-active", "inactive\ninactive\ninactive\n", status=3)
    host.expects(python_minimum="99.0")
    assert host.check(code).verdict == "FAIL"
