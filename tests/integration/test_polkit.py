"""libvirt's polkit access driver: the supervisor's user may read guests and open consoles.

A real bus, polkitd and system-mode libvirtd (tests/polkit.py), with the rules we ship and document.
"""

import contextlib
import os
import re
import subprocess

import pytest

from serial_console.demo import host
from tests import conftest, documents, polkit, rig

DOCS = os.path.join(polkit.ROOT, "docs", "libvirt-polkit.md")
SHIPPED = "50-serial-console.rules"
MANAGE = "org.libvirt.unix.manage"
DENIES_CONSOLES = (
    f'polkit.addRule(function (action, subject) {{ if (subject.user == "{polkit.USER}" && '
    'action.id == "org.libvirt.api.domain.open-device") return polkit.Result.NO; });'
)
DENIED = "libvirt on the host does not allow this console"
UNSEEN = "private-echo"
"""A guest that the documented rule about names keeps from the supervisor's user."""

GRANTED = {
    "org.libvirt.unix.monitor",
    "org.libvirt.unix.manage",
    "org.libvirt.api.connect.getattr",
    "org.libvirt.api.connect.search-domains",
    "org.libvirt.api.domain.getattr",
    "org.libvirt.api.domain.read",
    "org.libvirt.api.domain.open-device",
}
"""All that the supervisor's user may do; docs/libvirt-polkit.md says for what."""
FORBIDDEN = {
    "destroy {guest}": "domain.stop",
    "shutdown {guest}": "domain.init-control",
    "reboot {guest}": "domain.init-control",
    "reset {guest}": "domain.reset",
    "suspend {guest}": "domain.suspend",
    "resume {guest}": "domain.suspend",
    "start {off}": "domain.start",
    "save {guest} {file}": "domain.hibernate",
    "managedsave {guest}": "domain.hibernate",
    "dump {guest} {file}": "domain.core-dump",
    "screenshot {guest} {file}": "domain.screenshot",
    "send-key {guest} KEY_A": "domain.send-input",
    "inject-nmi {guest}": "domain.inject-nmi",
    "set-user-password {guest} root x": "domain.set-password",
    "qemu-monitor-command {guest} --hmp info": "domain.write",
    "qemu-agent-command {guest} {{}}": "domain.write",
    "dumpxml {guest} --security-info": "domain.read-secure",
    "domdisplay {guest} --include-password": "domain.read-secure",
    "define {xml}": "domain.write",
    "create {xml}": "domain.write",
    "undefine {off}": "domain.delete",
    "domrename {off} other": "domain.write",
    "autostart {off}": "domain.write",
    "desc {off} text": "domain.write",
    "setmem {guest} 8192": "domain.write",
    "setvcpus {guest} 1": "domain.write",
    "attach-device {guest} {xml}": "domain.write",
    "change-media {guest} fda --eject": "domain.write",
    "snapshot-create {guest}": "domain.snapshot",
    "checkpoint-create {guest}": "domain.checkpoint",
    "domfstrim {guest}": "domain.fs-trim",
    "domfsfreeze {guest}": "domain.fs-freeze",
    "guestinfo {guest}": "domain.write",
    "nodeinfo": "connect.read",
    "capabilities": "connect.read",
    "net-list --all": "connect.search-networks",
    "net-define {xml}": "network.write",
    "pool-list --all": "connect.search-storage-pools",
    "pool-create-as here dir --target {file}": "storage-pool.start",
    "secret-list": "connect.search-secrets",
    "secret-define {xml}": "secret.write",
    "iface-list": "connect.search-interfaces",
    "nwfilter-list": "connect.search-nwfilters",
    "nodedev-list": "connect.search-node-devices",
    "console private-echo": "domain.getattr",
    "domstate private-echo": "domain.getattr",
}
"""virsh commands, and the permission for lack of which libvirt denies them."""

XML = {
    "define": (
        "<domain type='qemu'><name>new</name><memory>1</memory><os><type>hvm</type></os></domain>"
    ),
    "net-define": "<network><name>new</name></network>",
    "secret-define": "<secret><usage type='volume'><volume>/x</volume></usage></secret>",
    "attach-device": "<serial type='pty'/>",
}
XML["create"] = XML["define"]


def documented_rules():
    """Return the rules that docs/libvirt-polkit.md shows, by the names it gives them."""
    with open(DOCS, encoding="utf-8") as file:
        text = file.read()
    names = re.findall(r"rules\.d/(\d\d-[\w-]+\.rules)`", text)
    blocks = re.findall(r"^ *```js\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    rules = dict(zip(names, blocks, strict=True))
    with open(polkit.RULES, encoding="utf-8") as file:
        return rules | {SHIPPED: file.read()}


@pytest.fixture(scope="module")
def there(pytestconfig):
    """A host that is set up as the document says."""
    with (
        host.short_directory("sc-polkit-") as directory,
        polkit.PolkitHost(f"{directory}/d", documented_rules()) as one,
    ):
        daemons = pytestconfig.stash.setdefault(conftest.DAEMONS, [])
        daemons.append(one)
        yield one
        daemons.remove(one)


@pytest.fixture(scope="module")
def guests(there):
    """A running guest, one that is off, and one that the supervisor's user must not see."""
    factory = rig.GuestFactory(there)
    yield {
        "guest": factory("echo"),
        "off": factory("echo", state="off"),
        "unseen": factory("echo", name=UNSEEN, state="running"),
    }
    factory.close()


@pytest.fixture
def make_host():
    """Make a host of a test's own, and a running guest on it."""
    with contextlib.ExitStack() as closing:

        def make(rules, **options):
            directory = closing.enter_context(host.short_directory("sc-polkit-"))
            one = closing.enter_context(polkit.PolkitHost(f"{directory}/d", rules, **options))
            factory = rig.GuestFactory(one)
            closing.callback(factory.close)
            return one, factory("echo", state="running")

        yield make


@pytest.fixture
def make_stack(make_host, run_dir, tmp_path):
    """Start supervisor and gateway on a host, as the supervisor's user; they end before it."""
    with contextlib.ExitStack() as stacks:

        def make(one):
            stack = polkit.PolkitStack(one, run_dir, str(tmp_path))
            stacks.callback(stack.close)
            return stack.start("supervisor", "gateway")

        yield make


def test_a_session_needs_all_that_the_rule_grants_and_nothing_more(there, guests, make_stack):
    before = len(there.asked())
    stack, guest = make_stack(there), guests["guest"]
    names = {one["name"] for one in stack.ask("guests")["guests"]}
    assert names == {guest.name, guests["off"].name}
    with stack.open(guest.name) as terminal:
        terminal.send(b"x")
        terminal.read_until(b"x")
        guest.suspend()
        terminal.read_until(b"[The guest is paused")
        guest.resume()
        terminal.read_until(b"[The guest runs again.]")
        guest.destroy()
        terminal.read_until(b"[The guest was switched off; waiting for its start.]")
        guest.start()
        terminal.read_until(b"ready\r\n")
        terminal.send(b"y")
        terminal.read_until(b"y")
    stack.wait_free()
    assert set(there.asked()[before:]) == GRANTED


@pytest.mark.parametrize("command", FORBIDDEN)
def test_the_same_user_can_do_nothing_else(there, guests, command):
    files = {
        "xml": there.add_file("new.xml", XML.get(command.split()[0], "").encode()),
        "file": f"{there.directory}/files/out",
    }
    names = {name: guest.name for name, guest in guests.items()}
    before = len(there.asked())
    worked, said = there.try_virsh(*command.format(**files, **names).split(), user=polkit.USER)
    assert not worked
    assert "access denied" in said or "failed to get domain" in said  # which hides the reason
    assert there.asked()[before:][-1] == f"org.libvirt.api.{FORBIDDEN[command]}"


def test_the_documented_check_tells_that_the_driver_is_in_force(there, guests):
    listing, secrets = documents.block("docs/libvirt-polkit.md", "check").splitlines()
    name = guests["guest"].name
    for line, worked, said in ((listing, True, name), (secrets, False, "access denied")):
        command = there.command("bash", "-c", line.replace("GUEST", name))
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert ((done.returncode == 0), said in done.stdout + done.stderr) == (worked, True), done


def test_of_all_that_libvirt_knows_polkit_grants_that_user_these_alone(there):
    actions = there.actions()
    assert len(actions) > 100
    loop = "for one; do pkcheck --process $$ --action-id $one 2>/dev/null && echo $one; done; :"
    command = there.command("sh", "-c", loop, "sh", *actions, user=polkit.USER)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    assert set(done.stdout.split()) == GRANTED


def test_a_guest_that_a_rule_hides_gets_no_token(there, guests, make_stack):
    stack = make_stack(there)
    for name in (UNSEEN, guests["unseen"].uuid):
        refused = stack.ask("issue", guest=name)
        assert (refused["ok"], refused["code"], refused["close"]) == (False, "libvirt_denied", 4503)
        assert "refuses our user" in refused["message"]


def test_other_users_are_as_before(there, guests):
    worked, said = there.try_virsh("--readonly", "list", "--name", user="stranger")
    assert worked
    assert {guests["guest"].name, UNSEEN} <= set(said.split())
    worked, said = there.try_virsh("list", user="stranger")
    assert not worked
    assert "no polkit agent" in said
    for command in ("suspend", "resume"):
        worked, said = there.try_virsh(command, guests["guest"].name, user="manager")
        assert worked, said


def test_a_console_that_is_not_allowed_for_a_while_comes_back(there, guests, make_stack):
    stack, guest = make_stack(there), guests["guest"]
    with stack.open(guest.name) as terminal:
        terminal.send(b"x")
        terminal.read_until(b"x")
        there.add_rule("10-test.rules", DENIES_CONSOLES)
        try:
            guest.destroy()
            guest.start()
            terminal.read_until(f"[{DENIED}; trying again.]".encode())
            stack.wait_sessions("reconnecting")
        finally:
            there.remove_rule("10-test.rules")
        terminal.read_until(b"[The connection to libvirt is back.]")
        terminal.send(b"y")
        terminal.read_until(b"y")
    stack.wait_free()
    assert stack.services["supervisor"].logged().count("refuses our user") == 1


def test_sessions_go_on_while_polkit_is_away(there, guests, make_stack):
    stack, guest = make_stack(there), guests["guest"]
    token = stack.token(guest.name)
    with stack.open(guest.name, mode="ro") as watcher, stack.open(guest.name) as terminal:
        terminal.send(b"x")
        watcher.read_until(b"x")
        there.end_polkitd()
        try:
            assert stack.ask("issue", guest=guest.name)["code"] == "libvirt_denied"
            terminal.send(b"y")
            terminal.read_until(b"y")
            watcher.read_until(b"y")
            terminal.close()
            watcher.close()
            stack.wait_free()
            with stack.connect(token) as refused:
                away = "libvirt on the host does not answer; try again in a while."
                assert refused.ended() == (4503, away)
        finally:
            there.start_polkitd()
    with stack.connect(token) as terminal:
        terminal.send(b"z")
        terminal.read_until(b"z")


def test_a_console_on_a_unix_socket_needs_the_right_to_it_and_libvirt_s_leave(there, make_stack):
    """What docs/consoles.md gives, and no way around polkit."""
    path = "/var/lib/libvirt/consoles/a.sock"
    device = f"<serial type='unix'><source mode='bind' path='{path}'/></serial>"
    factory = rig.GuestFactory(there)
    with contextlib.closing(factory):
        subprocess.run(there.command("mkdir", "-p", os.path.dirname(path)), check=True)
        guest = factory("echo", serial=(), extra=device, state="running")
        stack = make_stack(there)
        with stack.open(guest.name) as terminal:
            why = "The host cannot open this console now; its operator finds why in the log."
            assert terminal.ended() == (4503, why)
        why = f"console at {path}: Permission denied; docs/consoles.md says what it needs"
        assert why in stack.services["supervisor"].logged()
        block = documents.block("docs/consoles.md", "unix-directory")
        subprocess.run(there.command("sh", "-ec", block), check=True)
        guest.destroy()
        with stack.open(guest.name) as terminal:
            stack.wait_sessions("waiting")
            guest.start()
            terminal.read_until(b"ready\r\n")
            terminal.send(b"x")
            terminal.read_until(b"x")
        stack.wait_free()
        there.add_rule("10-test.rules", DENIES_CONSOLES)
        try:
            with stack.open(guest.name) as terminal:
                assert terminal.ended() == (4503, f"{DENIED}; its operator finds why in the log.")
        finally:
            there.remove_rule("10-test.rules")


def test_what_is_missing_is_said(make_host, make_stack):
    one, guest = make_host({})
    stack = make_stack(one)
    token = stack.token(guest.name)
    for words in ("no polkit agent available to authenticate", "access denied"):
        with stack.connect(token) as terminal:
            assert terminal.ended() == (4503, f"{DENIED}; its operator finds why in the log.")
        log = stack.services["supervisor"].logged().splitlines()
        (line,) = [line for line in log if words in line]
        assert f"refuses our user (uid {polkit.USERS[polkit.USER]})" in line
        assert "docs/libvirt-polkit.md" in line
        one.add_rule("50-test.rules", polkit.rule_for([MANAGE]))
    one.add_rule("50-test.rules", documented_rules()[SHIPPED])
    with stack.connect(token):
        stack.wait_sessions("connected")
    stack.wait_free()


def test_without_the_access_driver_the_right_to_connect_is_full_power(make_host):
    one, guest = make_host({SHIPPED: documented_rules()[SHIPPED]}, access_driver=False)
    for command in ("dumpxml --security-info", "destroy", "start", "suspend", "undefine"):
        worked, said = one.try_virsh(*command.split(), guest.name, user=polkit.USER)
        assert worked, said
