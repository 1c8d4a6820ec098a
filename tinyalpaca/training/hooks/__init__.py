"""All of a training that could be left out, each part an object of its own.

A hook sees the state of the run and what it was given at its making, never the loop. A user's own
derives from `Hook` and goes into `tinyalpaca.train(..., hooks=[...])`. This one tells Weights &
Biases what happens:

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
