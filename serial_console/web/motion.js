/** Whether the person wants little to move. */

export const reducedMotion = matchMedia('(prefers-reduced-motion: reduce)');
