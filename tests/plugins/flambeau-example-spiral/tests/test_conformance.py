"""The plugin does what Flambeau expects of one."""

import flambeau
from flambeau.testing import ModelConformance, PluginConformance, TrainerConformance


class TestPlugin(PluginConformance):
    plugin = "spiral"


class TestRadialBasisNetwork(ModelConformance):
    model = "spiral/rbf"
    config = {"centres": 4}
    output_shape = (5, 3)

    def inputs(self):
        return (flambeau.randn(5, 2),)


class TestTrainer(TrainerConformance):
    model = "spiral/rbf"
    trainer = "spiral/steps"
    options = {"steps": 2, "seed": 0}

    def data(self, folder):
        return ""
