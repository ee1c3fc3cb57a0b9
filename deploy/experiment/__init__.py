"""An experiment: many policies under many conditions, and the report on them.

    plan        which policies, under which conditions; a YAML of deploy/configs/experiment
    cells       the plan as evaluations, one policy under one condition each, in order of priority
    workers     processes that evaluate cells side by side
    run_plan    forcing-experiment: evaluates what is missing; can be killed and called again

    measured    what is in a results folder, cell by cell
    comparison  differences and ratios on the same seeds, with intervals
    curves      the numbers behind the plots; charts draws them, filmstrip the films
    tables      everything as tables
    verdicts    which targets are met, and all that speaks against ours
    sections    of the report, one after the other
    write_report  forcing-report: puts it together

A results folder holds everything that a report needs:

    plan.yaml                                       as it was run
    <policy>/<condition>-<phase>-<flag>/results.json  see `deploy.results`, with films beside it
    <policy>/<condition>-<phase>-<flag>/cell.json     what was asked, see `deploy.experiment.cells`
"""
