/** What the result of a step begins with that had its effect, but gave nothing that could be kept; see `Source.recordStep`. */
export const STEP_PROBLEM = '{"problem":'
