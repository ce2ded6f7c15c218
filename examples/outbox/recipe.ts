import { type Post, topic } from 'posthorn'

export const userSignedUp = topic<{ readonly email: string }>('user.signed_up')

/** The sign-up of a site that speaks to its database through some library. */
export interface SignUps {
  /** Inserts the user and publishes the event, together or neither. */
  signUp(email: string): Promise<void>
  close(): Promise<void>
}

export type Recipe = (post: Post, url: string) => Promise<SignUps>
