"""Before a stage runs: its paths must be visible on all nodes."""

import pytest

from carvana_ray import config
from carvana_ray.errors import InputError
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages.runner import require_shared_paths

ONE_NODE = ClusterResources(cpus=4, gpus=0, nodes=1)
TWO_NODES = ClusterResources(cpus=8, gpus=0, nodes=2)
AUTOSCALED = ClusterResources(cpus=4, gpus=0, nodes=1, autoscaler_max=(64, 0))
REMOTE = {"data": "s3://bucket/data", "out": "s3://bucket/out", "model": "s3://bucket/model"}


@pytest.mark.parametrize("cluster", [TWO_NODES, AUTOSCALED])
@pytest.mark.parametrize("name", ["data", "out", "model", "corrections"])
def test_a_local_path_on_a_cluster_is_an_error_that_names_its_flag(
    cluster: ClusterResources, name: str
) -> None:
    require_shared_paths(config.PredictFlags(**REMOTE), cluster)
    local = REMOTE | {name: "/folder"}
    with pytest.raises(InputError, match=f"--{name} /folder: .*--shared-filesystem"):
        require_shared_paths(config.PredictFlags(**local), cluster)
    require_shared_paths(config.PredictFlags(**local, shared_filesystem=True), cluster)
    require_shared_paths(config.PredictFlags(**local), ONE_NODE)


def test_each_of_several_named_images_must_be_visible_on_all_nodes() -> None:
    flags = config.CutoutFlags(
        pictures=("s3://bucket/a.jpg", "b.jpg"), model="s3://bucket/model", out="s3://bucket/out"
    )
    with pytest.raises(InputError, match=r"--pictures b\.jpg: "):
        require_shared_paths(flags, TWO_NODES)
