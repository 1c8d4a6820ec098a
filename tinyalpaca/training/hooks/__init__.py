"""The parts of training that could be left out, each an object of its own.

A hook knows the state of the run and its own arguments, but not the loop. Your own hooks derive
from `Hook` and are given to `tinyalpaca.train(..., hooks=[...])`. This one logs to Weights &
Biases:

    class WeightsAndBiases(Hook):
        def on_start(self, state):
            import wandb

            self.run = wandb.init(project="tinyalpaca")

        def on_step(self, state, made):
            last = made.results[-1]
            self.run.log({"loss": last.loss, "grad_norm": last.grad_norm}, step=state.step)

        def on_epoch(self, state, record):
            self.run.log({"val_loss": record["val_loss"]}, step=state.step)

        def close(self):
            self.run.finish()
"""

from tinyalpaca.training.hooks.hook import Hook

__all__ = ["Hook"]
