"""cluster.yaml before it costs money: validated by Ray, and started by Ray's own code in moto.

No cloud is asked. What moto cannot know, whether the machines then install and start what the
commands say, is not tested here.
"""

import base64
import contextlib
import copy
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import click
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private import commands, util
from ray.autoscaler._private.aws import config as aws_config
from ray.autoscaler._private.aws import node_provider
from ray.autoscaler._private.aws import utils as aws_utils
from ray.autoscaler.v2.instance_manager.config import FileConfigReader
from ray.autoscaler.v2.instance_manager.node_provider import NodeProviderAdapter
from ray.autoscaler.v2.instance_manager.ray_installer import RayInstaller
from ray.core.generated.instance_manager_pb2 import Instance

REPOSITORY = Path(__file__).parents[2]
POLICIES = REPOSITORY / "docs" / "policies"
REGION, ACCOUNT = "us-east-1", "123456789012"
OWN_ADDRESS = "203.0.113.7/32"
CHANGE_ME = ("ami-CHANGE-ME", "subnet-CHANGE-ME", "sg-CHANGE-ME")
PLAIN_PIP = re.compile(r"\bpip install (?P<what>[^&;|}]*)")
Config = dict[str, Any]


def load() -> Config:
    return yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name.split("[")[0]: version for name, version in pinned}


# What must hold


def faults(config: Config) -> list[str]:
    """Return what is wrong with a configuration, as loaded: nothing if it may be started."""
    try:
        prepared = util.prepare_config(copy.deepcopy(config))
        util.validate_config(prepared)
        kinds = prepared["available_node_types"]
        head = kinds[prepared["head_node_type"]]
        workers = {name: kind for name, kind in kinds.items() if kind is not head}
        return [
            *cost_faults(config, head, workers),
            *(fault for name, kind in kinds.items() for fault in node_faults(name, kind)),
            *role_faults(head, workers),
            *set_up_faults(prepared),
            *start_faults(prepared),
        ]
    except Exception as error:
        return [f"refused by Ray: {type(error).__name__}: {str(error).splitlines()[0]}"]


def cost_faults(config: Config, head: Config, workers: dict[str, Config]) -> Iterator[str]:
    most = sum(kind["max_workers"] for kind in workers.values())
    if not 0 < config.get("max_workers", 0) <= most:
        yield "max_workers: no bound on all workers together"
    if not 0 < config.get("idle_timeout_minutes", 0) <= 15:
        yield "idle_timeout_minutes: idle workers are kept"
    if config["provider"].get("cache_stopped_nodes", True):
        yield "cache_stopped_nodes: disks of stopped nodes are billed"
    for name, kind in workers.items():
        # As the user wrote it: Ray would put its own number in place of a missing one.
        if not 0 < config["available_node_types"][name].get("max_workers", 0) <= 8:
            yield f"{name}: max_workers: no bound"
        yield from worker_cost_faults(name, kind)
    if "InstanceMarketOptions" in head["node_config"]:
        yield "head: a spot instance, whose end is the job's end"
    if head["resources"].get("CPU") != 0 or head["max_workers"]:
        yield "head: work is done on it, or workers are of its type"


def worker_cost_faults(name: str, kind: Config) -> Iterator[str]:
    if kind["min_workers"]:
        yield f"{name}: min_workers: workers without work"
    spot = kind["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    if not kind["resources"].get("GPU") and not spot:
        yield f"{name}: not a spot instance"
    if not kind["resources"].get("CPU"):
        yield f"{name}: resources: no CPU"


def node_faults(name: str, kind: Config) -> Iterator[str]:
    node = kind["node_config"]
    for key in ("ImageId", "SubnetIds", "SecurityGroupIds", "IamInstanceProfile"):
        if not node.get(key):
            yield f"{name}: no {key}: Ray chooses or makes one"
    metadata = node.get("MetadataOptions", {})
    if metadata.get("HttpTokens") != "required" or metadata.get("HttpPutResponseHopLimit") != 1:
        yield f"{name}: MetadataOptions: not IMDSv2, or open to containers"
    disks = [disk["Ebs"] for disk in node.get("BlockDeviceMappings", [])]
    if not disks or not all(disk.get("Encrypted") for disk in disks):
        yield f"{name}: a disk that is not encrypted"
    if not all(disk.get("DeleteOnTermination") for disk in disks):
        yield f"{name}: a disk that outlives its machine"
    if node.get("InstanceInitiatedShutdownBehavior") != "terminate":
        yield f"{name}: shutdown stops it: its disk is billed"
    if not re.search(r"^shutdown -h \+\d{2,3}$", node.get("UserData", ""), re.MULTILINE):
        yield f"{name}: no shutdown switch: it lives until somebody remembers it"
    if {"worker_setup_commands", "initialization_commands", "docker"} & kind.keys():
        yield f"{name}: a set-up of its own"


def role_faults(head: Config, workers: dict[str, Config]) -> Iterator[str]:
    own = head["node_config"].get("IamInstanceProfile")
    for name, kind in workers.items():
        if kind["node_config"].get("IamInstanceProfile") == own:
            yield f"{name}: the head's profile: it could start machines"


def set_up_faults(prepared: Config) -> Iterator[str]:
    if "security_group" in prepared["provider"]:
        yield "provider.security_group: Ray adds port 22 for the world"
    set_up = prepared["setup_commands"]
    if not prepared["head_setup_commands"] == prepared["worker_setup_commands"] == set_up:
        yield "set-up differs between head and workers"
    for command in set_up:
        for found in PLAIN_PIP.finditer(command):
            words = shlex.split(found["what"])
            named = [word for word in words if not word.startswith(("-", "~"))]
            if "-r" not in words and not all("==" in word for word in named):
                yield f"set-up: not pinned: {found[0]}"
    text = "\n".join(set_up)
    if "requirements.txt" not in prepared["file_mounts"].values() or "-r ~/carvana" not in text:
        yield "set-up: requirements.txt is not what is installed"
    if "~/.ray/auth_token" not in prepared["file_mounts"]:
        yield "file_mounts: no token"
    if "chmod 600 ~/.ray/auth_token" not in text:
        yield "set-up: others may read the token"


def start_faults(prepared: Config) -> Iterator[str]:
    for side in ("head", "worker"):
        starts = [one for one in prepared[f"{side}_start_ray_commands"] if "ray start" in one]
        if len(starts) != 1 or not starts[0].startswith("export RAY_AUTH_MODE=token; "):
            yield f"{side}: starts without a token"
        if any("0.0.0.0" in one for one in starts):
            yield f"{side}: a port open to the network"
    head = prepared["head_start_ray_commands"][-1]
    if "--dashboard-host=127.0.0.1" not in head:
        yield "head: the dashboard is not on the loopback alone"
    if "--autoscaling-config=" not in head:
        yield "head: it starts no workers"


def test_it_has_no_fault() -> None:
    assert faults(load()) == []


# Each must be caught: (what is done to the configuration, what the fault says)


def put(value: Any, *path: str) -> Callable[[Config], None]:
    def mutate(config: Config) -> None:
        for name in path[:-1]:
            config = config[name]
        config[path[-1]] = value

    return mutate


def drop(*path: str) -> Callable[[Config], None]:
    def mutate(config: Config) -> None:
        for name in path[:-1]:
            config = config[name]
        del config[path[-1]]

    return mutate


def replace(old: str, new: str) -> Callable[[Config], None]:
    def mutate(config: Config) -> None:
        text = json.dumps(config)
        assert old in text
        config.update(json.loads(text.replace(old, new)))

    return mutate


HEAD, CPU, GPU = (("available_node_types", kind) for kind in ("head", "cpu", "gpu"))
OPEN_GROUP = {"IpPermissions": [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}]}
HEAD_PROFILE = {"Name": "carvana-ray-head"}
SPOT = {"MarketType": "spot"}
MISTAKES = {
    "group of the head": (drop(*HEAD, "node_config", "SecurityGroupIds"), "SecurityGroupIds"),
    "group of a worker": (drop(*CPU, "node_config", "SecurityGroupIds"), "SecurityGroupIds"),
    "group made by Ray": (put(OPEN_GROUP, "provider", "security_group"), "port 22 for the world"),
    "no subnet": (drop(*GPU, "node_config", "SubnetIds"), "SubnetIds"),
    "no image": (drop(*GPU, "node_config", "ImageId"), "ImageId"),
    "no profile": (drop(*HEAD, "node_config", "IamInstanceProfile"), "IamInstanceProfile"),
    "one profile": (put(HEAD_PROFILE, *GPU, "node_config", "IamInstanceProfile"), "head's profile"),
    "IMDSv1": (replace('"HttpTokens": "required"', '"HttpTokens": "optional"'), "IMDSv2"),
    "IMDS of containers": (replace('HopLimit": 1', 'HopLimit": 2'), "containers"),
    "no IMDS options": (drop(*CPU, "node_config", "MetadataOptions"), "IMDSv2"),
    "plain disks": (replace('"Encrypted": true', '"Encrypted": false'), "not encrypted"),
    "disks of the image": (drop(*CPU, "node_config", "BlockDeviceMappings"), "not encrypted"),
    "disks kept": (replace('Termination": true', 'Termination": false'), "outlives"),
    "no max_workers": (drop("max_workers"), "no bound on all"),
    "no max_workers of a type": (drop(*GPU, "max_workers"), "gpu: max_workers"),
    "many workers": (put(100, *CPU, "max_workers"), "cpu: max_workers"),
    "min_workers": (put(1, *CPU, "min_workers"), "without work"),
    "min_workers above all": (put(9, *CPU, "min_workers"), "refused by Ray"),
    "no idle timeout": (drop("idle_timeout_minutes"), "idle"),
    "a day of idleness": (put(1440, "idle_timeout_minutes"), "idle"),
    "stopped nodes kept": (drop("provider", "cache_stopped_nodes"), "stopped"),
    "no switch": (drop(*HEAD, "node_config", "UserData"), "head: no shutdown switch"),
    "no switch of workers": (drop(*GPU, "node_config", "UserData"), "gpu: no shutdown switch"),
    "a switch that stops": (
        drop(*HEAD, "node_config", "InstanceInitiatedShutdownBehavior"),
        "shutdown stops it",
    ),
    "spot head": (put(SPOT, *HEAD, "node_config", "InstanceMarketOptions"), "head: a spot"),
    "CPU workers on demand": (drop(*CPU, "node_config", "InstanceMarketOptions"), "not a spot"),
    "work on the head": (put({"CPU": 4}, *HEAD, "resources"), "work is done on it"),
    "resources of the head": (put({}, *HEAD, "resources"), "work is done on it"),
    "resources of a worker": (put({}, *CPU, "resources"), "no CPU"),
    "resources of a wrong type": (put({"CPU": "8"}, *CPU, "resources"), "refused by Ray"),
    "head without a token": (replace("export RAY_AUTH_MODE=token; ulimit", "ulimit"), "token"),
    "token off": (replace("RAY_AUTH_MODE=token; ", "RAY_AUTH_MODE=disabled; "), "token"),
    "worker without a token": (
        put(["ray start --address=$RAY_HEAD_IP:6379"], "worker_start_ray_commands"),
        "worker: starts without a token",
    ),
    "Ray's own start": (drop("worker_start_ray_commands"), "worker: starts without a token"),
    "token left at home": (drop("file_mounts", "~/.ray/auth_token"), "no token"),
    "token for all to read": (replace("chmod 600", "chmod 644"), "others may read"),
    "open dashboard": (replace("host=127.0.0.1", "host=0.0.0.0"), "open to the network"),
    "no autoscaler": (replace("--autoscaling-config", "--metrics-export-port"), "no workers"),
    "Ray's own set-up": (drop("setup_commands"), "not pinned"),
    "Ray's own boto3": (drop("head_setup_commands"), "differs"),
    "a package of its own": (
        put(["pip install lightgbm"], *GPU, "worker_setup_commands"),
        "set-up of its own",
    ),
    "a loose package": (replace("uv==0.13.9", "uv"), "not pinned"),
    "other requirements": (
        put("old.txt", "file_mounts", "~/carvana_ray/requirements.txt"),
        "requirements.txt is not what",
    ),
    "an unknown key": (put(1, "max_worker"), "refused by Ray"),
    "an unknown key of a type": (put("x", *CPU, "instance_type"), "refused by Ray"),
    "an unknown head": (put("haed", "head_node_type"), "refused by Ray"),
    "no head": (drop("head_node_type"), "refused by Ray"),
    "no node_config": (drop(*CPU, "node_config"), "refused by Ray"),
    "an unknown cloud": (put("awz", "provider", "type"), "refused by Ray"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_caught(mistake: str) -> None:
    mutate, says = MISTAKES[mistake]
    config = load()
    config = json.loads(json.dumps(config))  # without YAML's anchors: one change is one change
    mutate(config)
    assert any(says in fault for fault in faults(config)), faults(config)


def test_what_is_to_be_changed_stands_first_and_is_little() -> None:
    lines = (REPOSITORY / "cluster.yaml").read_text().splitlines()
    marked = [number for number, line in enumerate(lines) if "<- change" in line]
    placeholders = [number for number, line in enumerate(lines) if "CHANGE-ME" in line]
    assert len(marked) == 4
    assert set(placeholders) <= set(marked)
    assert max(marked) < 30


# Started in moto, by Ray's own code


@dataclass
class Machines:
    """Stands for ssh and rsync: what is copied to a machine lands in a folder, nothing is run."""

    home: Path
    ran: list[str] = field(default_factory=list)
    DEVNULL = subprocess.DEVNULL

    def check_call(self, command: list[str], **_: Any) -> int:
        if command[0] == "rsync":
            source, target = command[-2], command[-1].split(":", 1)[1]
            place = self.home / target.removeprefix("~/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if Path(source) != place:  # from the head to a worker: both have the same home here
                shutil.copy(source, place)
        else:
            self.ran.append(command[-1])
        return 0

    def check_output(self, command: list[str], **_: Any) -> bytes:
        self.ran.append(command[-1])
        return b""


@dataclass
class Cloud:
    """moto's AWS account, with what docs/cluster.md has made in it.

    Attributes:
        config: cluster.yaml with its placeholders filled in.
        called: what was asked of AWS, as policies name it.
    """

    config: Config
    called: list[str]

    def instances(self) -> list[Config]:
        pages = boto3.client("ec2", REGION).describe_instances()["Reservations"]
        return [one for page in pages for one in page["Instances"]]


@contextlib.contextmanager
def account(home: Path) -> Iterator[Cloud]:
    """Give an account in moto, and a laptop with a token and no keys."""
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("token")
    environment = {
        "HOME": str(home),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    called: list[str] = []
    send = botocore.client.BaseClient._make_api_call

    def note(self: Any, operation: str, arguments: Config) -> Any:
        called.append(f"{self.meta.service_model.signing_name}:{operation}")
        return send(self, operation, arguments)

    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name, value in environment.items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        patch.chdir(REPOSITORY)  # where `ray up` finds requirements.txt
        patch.setattr(node_provider, "TAG_BATCH_DELAY", 0)
        for cached in (aws_utils.resource_cache, aws_utils.client_cache):
            cached.cache_clear()
        aws_config._get_subnets_or_die.cache_clear()
        text = (REPOSITORY / "cluster.yaml").read_text()
        for placeholder, real in zip(CHANGE_ME, make_account(), strict=True):
            text = text.replace(placeholder, real)
        patch.setattr(botocore.client.BaseClient, "_make_api_call", note)
        yield Cloud(yaml.safe_load(text), called)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with account(tmp_path / "laptop") as one:
        yield one


def make_account() -> tuple[str, str, str]:
    """Make what docs/cluster.md makes; return an image, a subnet and a security group."""
    ec2, iam = boto3.client("ec2", REGION), boto3.client("iam")
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    group = ec2.create_security_group(GroupName="carvana-ray", Description="-", VpcId=vpc)[
        "GroupId"
    ]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": OWN_ADDRESS}]}
    within = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[ssh, within])
    for name, rights in {
        "carvana-ray-head": ("head", "worker-s3"),
        "carvana-ray-worker": ("worker-s3",),
    }.items():
        trust = (POLICIES / "trust.json").read_text()
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
        for right in rights:
            text = (POLICIES / f"{right}.json").read_text()
            for placeholder, real in {"ACCOUNT": ACCOUNT, "REGION": REGION, "BUCKET": "b"}.items():
                text = text.replace(placeholder, real)
            iam.put_role_policy(RoleName=name, PolicyName=right, PolicyDocument=text)
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    return image, subnet, group


def bootstrap(config: Config) -> Config:
    """Do what `ray up` does before it starts anything."""
    provider = node_provider.AWSNodeProvider
    prepared = provider.fillout_available_node_types_resources(util.prepare_config(config))
    util.validate_config(prepared)
    return provider.bootstrap_config(prepared)


def start_head(config: Config, machines: Machines) -> node_provider.AWSNodeProvider:
    """Do what `ray up` does then."""
    provider = node_provider.AWSNodeProvider(config["provider"], config["cluster_name"])
    commands.get_or_create_head_node(
        config, "cluster.yaml", False, False, True, None, _provider=provider, _runner=machines
    )
    return provider


def start_workers(machines: Machines, *kinds: str) -> node_provider.AWSNodeProvider:
    """Do what the autoscaler does on the head, with the files that `ray up` has left there."""
    reader = FileConfigReader(str(machines.home / "ray_bootstrap_config.yaml"))
    config = reader.get_cached_autoscaling_config()
    provider = node_provider.AWSNodeProvider(config.get_config("provider"), "carvana-ray")
    adapter = NodeProviderAdapter(provider, reader)
    for kind in kinds:
        adapter._launch_nodes_by_type(kind, 1, "request")
    assert adapter.poll_errors() == []
    for id_, one in adapter.get_non_terminated().items():
        if one.node_type in kinds:
            instance = Instance(cloud_instance_id=id_, instance_type=one.node_type)
            RayInstaller(provider, config, machines).install_ray(instance, "10.0.0.4")
    return provider


@dataclass(frozen=True)
class Started:
    """A head and a worker of each type, as AWS and the machines saw it.

    Attributes:
        instances: by type of node, as EC2 describes them; with `shutdown` and `script`.
        head_ran, workers_ran: the commands that came by ssh.
        laptop, head: their home folders.
    """

    instances: dict[str, Config]
    volumes: list[Config]
    groups: list[Config]
    roles: list[str]
    role_policies: list[str]
    head_ran: list[str]
    workers_ran: list[str]
    laptop: Path
    head: Path


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Started:
    root = tmp_path_factory.mktemp("started")
    machines = Machines(root / "head")
    with account(root / "laptop") as cloud:
        start_head(bootstrap(cloud.config), machines)
        head_ran, machines.ran = machines.ran, []
        os.environ["HOME"] = str(machines.home)  # put back by the account
        start_workers(machines, "gpu", "cpu")
        ec2, iam = boto3.client("ec2", REGION), boto3.client("iam")

        def attribute(id_: str, name: str) -> str:
            found = ec2.describe_instance_attribute(InstanceId=id_, Attribute=name)
            return found[name[0].upper() + name[1:]]["Value"]

        instances = {}
        for one in cloud.instances():
            id_, tags = one["InstanceId"], {tag["Key"]: tag["Value"] for tag in one["Tags"]}
            one["shutdown"] = attribute(id_, "instanceInitiatedShutdownBehavior")
            one["script"] = base64.b64decode(attribute(id_, "userData")).decode()
            instances[tags["ray-user-node-type"]] = one
        roles = [role["RoleName"] for role in iam.list_roles()["Roles"]]
        attached = [iam.list_attached_role_policies(RoleName=role) for role in roles]
        return Started(
            instances,
            ec2.describe_volumes()["Volumes"],
            ec2.describe_security_groups()["SecurityGroups"],
            roles,
            [one["PolicyName"] for answer in attached for one in answer["AttachedPolicies"]],
            head_ran,
            machines.ran,
            root / "laptop",
            machines.home,
        )


@pytest.mark.parametrize(
    ("kind", "type_", "profile", "spot"),
    [
        ("head", "m6i.xlarge", "carvana-ray-head", False),
        ("gpu", "g6.2xlarge", "carvana-ray-worker", False),
        ("cpu", "m6i.2xlarge", "carvana-ray-worker", True),
    ],
)
def test_what_is_started(started: Started, kind: str, type_: str, profile: str, spot: bool) -> None:
    one = started.instances[kind]
    assert one["InstanceType"] == type_
    assert one["IamInstanceProfile"]["Arn"].endswith(f":instance-profile/{profile}")
    assert (one.get("InstanceLifecycle") == "spot") is spot
    assert one["MetadataOptions"]["HttpTokens"] == "required"
    assert one["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert [group["GroupName"] for group in one["SecurityGroups"]] == ["carvana-ray"]
    assert one["KeyName"] == "carvana-ray"
    assert one["shutdown"] == "terminate"
    assert one["script"].startswith("#!/bin/bash\nshutdown -h +480\n")
    (disk,) = one["BlockDeviceMappings"]
    assert disk["Ebs"]["DeleteOnTermination"]
    assert one["RootDeviceName"] == disk["DeviceName"]


def test_disks_are_encrypted(started: Started) -> None:
    assert [volume["Encrypted"] for volume in started.volumes] == [True] * 3


def test_nobody_else_is_let_in(started: Started) -> None:
    names = {group["GroupName"] for group in started.groups}
    assert names == {"carvana-ray", "default"}, "Ray made one"
    rules = [rule for group in started.groups for rule in group["IpPermissions"]]
    assert {one["CidrIp"] for rule in rules for one in rule["IpRanges"]} == {OWN_ADDRESS}
    assert not any(rule.get("Ipv6Ranges") for rule in rules)


def test_ray_makes_no_role(started: Started) -> None:
    assert sorted(started.roles) == ["carvana-ray-head", "carvana-ray-worker"]
    assert started.role_policies == [], "AWS's own, such as AmazonS3FullAccess"


def test_ray_knows_the_same_resources(cloud: Cloud) -> None:
    """What is written for each type of node is what EC2 says of it."""
    written = copy.deepcopy(cloud.config)
    for kind in ("gpu", "cpu"):
        written["available_node_types"][kind]["resources"] = {}
    found = bootstrap(written)["available_node_types"]
    for kind in ("gpu", "cpu"):
        ours = cloud.config["available_node_types"][kind]["resources"]
        theirs = {name: found[kind]["resources"].get(name) for name in ours}
        assert ours == theirs
    assert ("GPU" in found["cpu"]["resources"]) is False
    assert found["head"]["resources"] == {"CPU": 0}


def test_commands_that_are_run(started: Started) -> None:
    wanted = {
        "head": (started.head_ran, ["ray start --head"], ['"CPU":0']),
        "workers": (
            started.workers_ran,
            ["ray start --address=$RAY_HEAD_IP:6379"] * 2,
            ['"CPU":8', '"GPU":1'],
        ),
    }
    for ran, starts, resources in wanted.values():
        found = [one for one in ran if "ray start" in one]
        assert len(found) == len(starts)
        assert all(start in one for start, one in zip(starts, found, strict=True))
        assert all("export RAY_AUTH_MODE=token; " in one for one in found)
        assert all(any(part in one for one in found) for part in resources)
        assert any("chmod 600 ~/.ray/auth_token" in one for one in ran)
        assert any("-r ~/carvana_ray/requirements.txt" in one for one in ran)
        # Ray's defaults for what is not given
        assert not any(word in one for one in ran for word in ("boto3", "anaconda3", "0.0.0.0"))


def test_the_head_passes_token_and_key_on(started: Started) -> None:
    assert (started.head / ".ray" / "auth_token").read_text() == "token"
    installed = (started.head / "carvana_ray" / "requirements.txt").read_text()
    assert installed == (REPOSITORY / "requirements.txt").read_text()
    key = started.laptop / ".ssh" / "carvana-ray.pem"
    assert key.stat().st_mode & 0o077 == 0
    assert (started.head / "ray_bootstrap_key.pem").read_text() == key.read_text()


def test_the_policies_allow_what_ray_calls_and_no_more(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = Machines(tmp_path / "head")
    provider = start_head(bootstrap(cloud.config), machines)
    provider.terminate_nodes(provider.non_terminated_nodes({}))  # ray down
    assert set(cloud.called) == allowed("user", "ec2")
    cloud.called.clear()
    monkeypatch.setenv("HOME", str(machines.home))
    provider = start_workers(machines, "cpu")
    provider.terminate_nodes(provider.non_terminated_nodes({}))
    assert set(cloud.called) == allowed("head", "ec2")


@pytest.mark.parametrize(
    ("kind", "forgotten", "says"),
    [
        ("SubnetIds", "subnet-CHANGE-ME", "Not all subnet IDs found"),
        ("SecurityGroupIds", "sg-CHANGE-ME", "Failed to detect a security group"),
    ],
)
def test_a_forgotten_placeholder_ends_it_before_anything_is_started(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], kind: str, forgotten: str, says: str
) -> None:
    assert forgotten in CHANGE_ME
    for node in cloud.config["available_node_types"].values():
        node["node_config"][kind] = [forgotten]
    with pytest.raises((AssertionError, click.ClickException)):
        node_provider.AWSNodeProvider.bootstrap_config(util.prepare_config(cloud.config))
    assert says in capsys.readouterr().err
    assert cloud.instances() == []


# What the machines run, here with stand-ins for the commands that would end this machine


@pytest.mark.parametrize(
    ("raylet", "minutes"), [("000", 25), ("1100", 65), ("01000", 50), ("1010111000", 135)]
)
def test_a_machine_without_ray_ends_itself(raylet: str, minutes: int, tmp_path: Path) -> None:
    """`raylet`: whether it runs, at each look."""
    looks = tmp_path / "looks"
    looks.write_text(raylet)
    stand_ins = {
        "shutdown": f'echo "$@" >> {tmp_path}/ended',
        "systemd-run": 'shift; exec "$@"',
        "sleep": f'echo "$1" >> {tmp_path}/slept',
        "pgrep": f'read -r all < {looks}; echo "${{all:1}}" > {looks}; [ "${{all:0:1}}" = 1 ]',
    }
    for name, body in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    script = load()["available_node_types"]["head"]["node_config"]["UserData"]
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["bash", "-c", script], env={"PATH": path}, check=True, timeout=20)
    assert (tmp_path / "ended").read_text() == "-h +480\n-h now\n"
    slept = sum(int(line) for line in (tmp_path / "slept").read_text().split())
    assert slept == minutes * 60


def test_the_set_up_is_done_once_for_each_requirements_txt(tmp_path: Path) -> None:
    """Ray runs the set-up on workers twice, and on the head at each `ray up`."""
    log, programs = tmp_path / "log", tmp_path / "programs"
    programs.mkdir()
    makes = 'mkdir -p "${@: -1}/bin"; for p in pip uv; do cp "$0" "${@: -1}/bin/$p"; done'
    for name in ("sudo", "python3.12", "cloud-init"):
        makes_venv = makes if name == "python3.12" else "echo eu-west-1"
        body = f'#!/bin/bash\necho "${{0##*/}} $*" >> {log}\n[[ $0 == */pip || $0 == */uv ]] || '
        (programs / name).write_text(body + "{ " + makes_venv + "; }\n")
        (programs / name).chmod(0o755)
    for place in (".ray/auth_token", "carvana_ray/requirements.txt", ".bashrc"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("#\n")

    def set_up() -> list[str]:
        log.write_text("")
        for command in load()["setup_commands"]:
            environment = {"HOME": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}"}
            subprocess.run(["bash", "-c", command], env=environment, check=True, timeout=20)
        return log.read_text().splitlines()

    first = [line.split()[0] for line in set_up()]
    assert first == ["sudo", "sudo", "python3.12", "pip", "uv", "cloud-init"]
    assert set_up() == []
    (tmp_path / "carvana_ray/requirements.txt").write_text("ray==2.61.0\n")
    assert [line.split()[0] for line in set_up()][-2:] == ["pip", "uv"]
    assert (tmp_path / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
    shell = subprocess.run(
        ["bash", "-c", "source ~/.bashrc; echo $RAY_AUTH_MODE $AWS_DEFAULT_REGION ${PATH%%:*}"],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout.split() == ["token", "eu-west-1", f"{tmp_path}/carvana_ray/venv/bin"]


# The policies


def policy(name: str) -> list[Config]:
    return json.loads((POLICIES / f"{name}.json").read_text())["Statement"]


def many(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def allowed(name: str, service: str) -> set[str]:
    return {
        action
        for statement in policy(name)
        for action in many(statement["Action"])
        if statement["Effect"] == "Allow" and action.startswith(f"{service}:")
    }


def test_no_policy_allows_everything() -> None:
    for path in POLICIES.glob("*.json"):
        for statement in json.loads(path.read_text()).get("Statement", []):
            if statement["Effect"] == "Deny":
                continue
            actions, resources = many(statement["Action"]), many(statement.get("Resource", []))
            assert not any("*" in action for action in actions), path
            if "*" in resources:
                assert all(action.startswith("ec2:Describe") for action in actions), path


def test_rights_to_the_bucket() -> None:
    """What the program asks of S3 (carvana_ray/s3.py), and where."""
    rights: dict[str, set[str]] = {}
    for statement in policy("worker-s3"):
        rights.setdefault(statement["Resource"], set()).update(many(statement["Action"]))
    writes = {"s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}
    assert rights == {
        "arn:aws:s3:::BUCKET": {"s3:ListBucket"},
        "arn:aws:s3:::BUCKET/carvana/*": {"s3:GetObject"},
        "arn:aws:s3:::BUCKET/runs/*": {"s3:GetObject", *writes},
    }
    (listing,) = [one for one in policy("worker-s3") if one["Action"] == "s3:ListBucket"]
    assert "s3:prefix" in listing["Condition"]["StringLike"]
    deletes = [
        resource
        for path in POLICIES.glob("*.json")
        for statement in json.loads(path.read_text()).get("Statement", [])
        for resource in many(statement.get("Resource", []))
        if any("Delete" in action for action in many(statement["Action"]))
    ]
    assert deletes == ["arn:aws:s3:::BUCKET/runs/*"]


def test_policies_know_the_same_machines_as_the_cluster() -> None:
    kinds = load()["available_node_types"]
    started = {"user": [kinds.pop("head")], "head": list(kinds.values())}
    for name, types in started.items():
        (run,) = [one for one in policy(name) if one.get("Sid", "").startswith("Start")]
        condition = run["Condition"]["StringEquals"]
        wanted = {kind["node_config"]["InstanceType"] for kind in types}
        assert set(many(condition["ec2:InstanceType"])) == wanted
        assert condition["aws:RequestTag/ray-cluster-name"] == load()["cluster_name"]
        profiles = {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in types}
        assert {run["Condition"]["ArnEquals"]["ec2:InstanceProfile"].split("/")[-1]} == profiles
        (role,) = [one for one in policy(name) if one["Action"] == "iam:PassRole"]
        assert {role["Resource"].split("/")[-1]} == profiles


def test_the_bucket_takes_the_rules_for_it(cloud: Cloud) -> None:
    s3 = boto3.client("s3", REGION)
    s3.create_bucket(Bucket="pictures")
    rules = (POLICIES / "bucket.json").read_text().replace("BUCKET", "pictures")
    s3.put_bucket_policy(Bucket="pictures", Policy=rules)
    life = json.loads((POLICIES / "lifecycle.json").read_text())
    s3.put_bucket_lifecycle_configuration(Bucket="pictures", LifecycleConfiguration=life)
    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket="pictures")["Rules"]
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    (statement,) = policy("bucket")
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


# Kubernetes


def test_the_job_for_kubernetes() -> None:
    job, *accounts = yaml.safe_load_all((REPOSITORY / "docs" / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 < spec["activeDeadlineSeconds"] <= 8 * 3600
    assert cluster["rayVersion"] == pins()["ray"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    head, groups = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert all(group["minReplicas"] == group["replicas"] == 0 for group in groups)
    assert all(0 < group["maxReplicas"] <= 8 for group in groups)
    pods = [group["template"]["spec"] for group in (head, *groups)]
    images = {container["image"] for pod in pods for container in pod["containers"]}
    assert [image.split(":")[-1] for image in images] == [pins()["ray"]]
    used = {pod["serviceAccountName"] for pod in pods}
    assert used == {account["metadata"]["name"] for account in accounts}
    assert head["template"]["spec"]["serviceAccountName"] not in {
        group["template"]["spec"]["serviceAccountName"] for group in groups
    }
    limits = [pod["containers"][0]["resources"]["limits"] for pod in pods]
    assert [limit.get("nvidia.com/gpu") for limit in limits] == [None, "1", None]
