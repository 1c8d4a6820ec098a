"""Training: a loop over a value.

    run -> loop -> steps -> task          hooks -> state

One batch, and the six files of this package that it meets:

1. `loop.py` asks whether somebody wants to stop, and has the next step made: `steps.run(state)`.
2. `steps.py` asks the task's sampler which windows come next. It begins where the state says.
3. `tinyalpaca/data/windows.py` cuts them out of the tokens: inputs and targets (B, T), the batch.
   `steps.py` hands it to the engine (`minigrad/parallel/cpu.py`), whose workers take a micro-batch
   each, and make loss and gradient of it.
4. `loss.py` is what they call, with the dropout masks of this micro-batch.
5. `tinyalpaca/evaluation.py` sums the cross-entropies of what
6. `tinyalpaca/model.py` predicts. From there the engine (`minigrad/backward_pass.py`) walks back.
   It adds the gradients up in an order that is always the same, and `steps.py` has it clip them
   and make the update.

What has come of it, four numbers, goes back to `loop.py`. They are counted in the state
(`state.py`), a value: with the weights it is all that a checkpoint holds. Then each of the `hooks/`
may look at them: they average the weights, write metrics, save checkpoints, draw, print, stop a run
that gets no better. Nothing else changes the state. So a step that fails has not happened, and a
run that stops anywhere goes on as if it had not.

What is trained (model, loss, data, optimizer, schedule, engine) is held by `task.py`; each can be a
user's own, and what is not is made in `defaults.py`. On a GPU `gpu_steps.py` stands where
`steps.py` does, and makes many steps before anybody looks. `run.py` builds all parts and knows them
all; `job.py` is the main job around it, and `tinyalpaca.train`.
"""
