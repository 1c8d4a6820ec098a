"""Training: a loop that changes one value, the state of the run.

    run -> loop -> steps -> task          hooks -> state

One batch, and the six files that it passes through:

1. `loop.py` asks whether a stop was requested, and makes the next step: `steps.run(state)`.
2. `steps.py` asks the task's sampler which windows come next. It begins where the state says.
3. `tinyalpaca/data/windows.py` cuts them out of the tokens: inputs and targets (B, T), the batch.
   `steps.py` hands it to the engine (`minigrad/parallel/cpu.py`), whose workers compute loss and
   gradient of one micro-batch each.
4. `loss.py` is what they call, with the dropout masks of this micro-batch.
5. `tinyalpaca/evaluation.py` sums the cross-entropies of what
6. `tinyalpaca/model.py` predicts. From there the engine (`minigrad/backward_pass.py`) walks back.
   It adds the gradients up in a fixed order. Then `steps.py` tells it to clip them and to make the
   update.

The result, four numbers, is returned to `loop.py`, which adds it to the state (`state.py`). State
and weights together are all that a checkpoint holds. Then each of the `hooks/` is called: they
average the weights, write metrics, save checkpoints, draw, print, or stop a run that no longer
improves. Only the loop changes the state. So a step that fails leaves it as it was, and a run that
is stopped and resumed is bitwise identical to one that never was.

`task.py` holds what is trained: model, loss, data, optimizer, schedule, engine. Each can be a
user's own; the others are made in `defaults.py`. On a GPU `gpu_steps.py` replaces `steps.py`: it
makes many steps before the CPU reads results back. `run.py` builds all parts and knows them all;
`job.py` is the main job around it, and `tinyalpaca.train`.
"""
