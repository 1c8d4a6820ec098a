"""Training: a loop over a value.

    run -> loop -> steps -> task          hooks -> state

One batch, and the files that it meets:

1. `loop.py` asks whether somebody wants to stop, and calls `steps.run(state)`. The state is a value
   (`state.py`): with the weights it is all that a checkpoint holds.
2. `steps.py` takes the next windows from the task's sampler, which begins where the state says,
   asks the engine for the gradient of their mean loss, and has it make the update.
   On a GPU `gpu_steps.py` does so many times before it looks.
3. `task.py` holds what these are: model, loss, data, optimizer, schedule, engine. Each can be a
   user's own; what is not is made in `defaults.py`.
4. `loss.py` calls the model on a micro-batch, in a worker of the engine (`minigrad.parallel`).
5. Back in `loop.py` the result is counted in the state, and each of the `hooks/` may look at it:
   they write metrics, save checkpoints, draw, print, stop a run that gets no better.

Nothing but the last step changes the state. So a step that fails has not happened, and a run that
stops anywhere goes on as if it had not. `run.py` builds all parts and knows them all; `job.py` is
the main job around it, and `tinyalpaca.train`.
"""
