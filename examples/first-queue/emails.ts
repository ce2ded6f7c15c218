// #region definition
import { queue } from 'posthorn'
import { z } from 'zod'

export const emails = queue('emails', {
  schema: z.object({ to: z.email(), subject: z.string() }),
})
// #endregion
